#pragma once
/// Constants of the 4-bit formats with a value table.

#include <cstdint>

namespace snug {

/// IQ4_NL and IQ4_XS: the values of the 16 codes.
inline constexpr std::int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};
/// MXFP4 (OCP microscaling, E2M1): twice the values of the 16 codes.
inline constexpr std::int8_t kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace snug
