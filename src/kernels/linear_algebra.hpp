#pragma once
/// Small dense matrices, row by row, for what is learned from moments.

#include <cstddef>
#include <span>
#include <vector>

namespace snug {

/// Makes rows of n values orthonormal, in order; a row that depends on those before becomes 0, as it adds nothing. A
/// second pass mends what rounding leaves where rows were nearly dependent.
void orthonormalise(std::span<float> rows, std::size_t n, int passes = 2);

/// The lower half of a symmetric matrix [n][n] becomes Cholesky's factor, in place. Squares on the diagonal are taken
/// to be at least `least`. (In double: moments of activations span many orders of magnitude.)
void factorise(std::vector<double>& matrix, std::size_t n, double least);

}  // namespace snug
