#pragma once
/* C interface of the Rust crate in rust/. Everything it gives out is freed by it. No function lets a panic escape. */

#include <stddef.h>
#include <stdint.h>

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

/* Grammars that answers must follow (llguidance). */
typedef struct snug_grammars snug_grammars;     /* of one vocabulary */
typedef struct snug_constraint snug_constraint; /* of one answer, as far as it has come */

/* `pieces`: the bytes of all tokens, one after the other, of which token i has sizes[i]; control tokens have none. NULL
   on failure, and *error then says why in one line. */
snug_grammars* snug_grammars_new(const char* pieces, const uint32_t* sizes, size_t count, uint32_t eos,
                                 snug_bytes* error);
void snug_grammars_free(snug_grammars* grammars);

/* `kind`: "json_schema", "regex" or "lark". May be called by several threads at once. */
snug_constraint* snug_constraint_new(const snug_grammars* grammars, const char* kind, size_t kind_size,
                                     const char* text, size_t text_size, snug_bytes* error);
/* Another answer's, from where this one is. */
snug_constraint* snug_constraint_copy(const snug_constraint* constraint, snug_bytes* error);
/* Sets a bit of every token that may come next. Returns 0, or 1 and *error. */
int snug_constraint_mask(snug_constraint* constraint, uint32_t* mask, size_t words, snug_bytes* error);
/* The answer goes on with a token. The same. */
int snug_constraint_take(snug_constraint* constraint, uint32_t token, snug_bytes* error);
/* Whether nothing but the end can follow. */
int snug_constraint_ended(const snug_constraint* constraint);
void snug_constraint_free(snug_constraint* constraint);

#ifdef __cplusplus
}
#endif
