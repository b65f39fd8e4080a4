#include "cli/certificates.hpp"

#include <unistd.h>

#include <cstdlib>

namespace snug {

namespace {

constexpr const char* kUsualFiles[] = {
    "/etc/ssl/certs/ca-certificates.crt",  // Debian, Ubuntu, Arch, Gentoo
    "/etc/pki/tls/certs/ca-bundle.crt",    // Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",              // openSUSE
    "/etc/ssl/cert.pem",                   // Alpine and others
};

}  // namespace

void trust_certificates(CURL* curl) {
  if (const char* given = std::getenv("SSL_CERT_FILE"); given && *given) {
    curl_easy_setopt(curl, CURLOPT_CAINFO, given);
    return;
  }
  char *file = nullptr, *folder = nullptr;
  curl_easy_getinfo(curl, CURLINFO_CAINFO, &file);
  curl_easy_getinfo(curl, CURLINFO_CAPATH, &folder);
  if (file || folder) return;
  for (const char* usual : kUsualFiles)
    if (access(usual, R_OK) == 0) {
      curl_easy_setopt(curl, CURLOPT_CAINFO, usual);
      return;
    }
}

}  // namespace snug
