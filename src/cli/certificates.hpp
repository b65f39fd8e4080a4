#pragma once
/// Which certificates HTTPS connections are checked against.

#include <curl/curl.h>

namespace snug {

/// The file that SSL_CERT_FILE names, else what this libcurl was built to use; one that was built without a place (it
/// is part of binaries that run on any distribution) takes the first of the places that are usual.
void trust_certificates(CURL* curl);

}  // namespace snug
