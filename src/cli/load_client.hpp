#pragma once
/// Sends conversations to an OpenAI-compatible server and notes when what comes back.

#include <string>
#include <vector>

#include "serve/load_trace.hpp"

namespace snug {

struct LoadTarget {
  std::string url = "http://127.0.0.1:8080/v1";  ///< up to and with /v1
  std::string model = "default", key;
  bool ignore_end = false;  ///< asks for answers of full length (an extension that snug, llama.cpp and vLLM know)
  std::vector<std::string> stop;
  double temperature = 0;  ///< above 0 answers are drawn, the same for the same seed
  std::uint64_t seed = 1;
  long timeout_seconds = 600;
};

struct LoadResult {
  std::string error;                ///< "": answered
  double start = 0, end = 0;        ///< seconds from the start of all
  std::vector<double> piece_times;  ///< when each piece of text came
  std::size_t prompt_tokens = 0, tokens = 0;
};

/// One result for each turn that was begun. Throws IoError when libcurl cannot be used.
std::vector<LoadResult> run_load(const LoadTarget& target, const std::vector<LoadConversation>& load);

}  // namespace snug
