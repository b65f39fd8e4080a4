#pragma once
/// The built page (web/dist), as part of the binary (cmake/web.cmake).

#include <span>
#include <string_view>

namespace snug {

struct WebFile {
  std::string_view path, type, content, gzip;
};
std::span<const WebFile> web_files();

}  // namespace snug
