#pragma once
/* C interface of the Rust crate in rust/. Everything it gives out is freed by it. No function lets a panic escape. */

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct snug_template snug_template;

/* Bytes owned by the crate; not terminated. Empty: data is NULL. */
typedef struct {
  char* data;
  size_t size;
} snug_bytes;

void snug_bytes_free(snug_bytes bytes);

/* Compiles a Jinja2 chat template. NULL on failure, and *error then says why in one line. */
snug_template* snug_template_new(const char* source, size_t source_size, snug_bytes* error);

/* Renders with the variables of a JSON object. Returns 0 and *result, or 1 and *error (one line); error is the
   template's own text when *raised is set to 1 (raise_exception). May be called by several threads at once. */
int snug_template_render(const snug_template* compiled, const char* json, size_t json_size, snug_bytes* result,
                         snug_bytes* error, int* raised);

void snug_template_free(snug_template* compiled);

#ifdef __cplusplus
}
#endif
