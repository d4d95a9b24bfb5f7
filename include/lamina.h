/* lamina: large language models that do not fit in memory.
 *
 * Weights stay on disk and flow through a fixed budget of memory, layer by layer, once per forward pass; the answer
 * is the one the full model gives. Two opaque handles carry everything:
 *
 *   engine   an opened model; after lamina_start() also its plan, its buffers and its stream of weights
 *   session  one timeline of tokens with its keys and values (KV)
 *
 * Conventions. Every function that can fail returns a lamina_status and, if `err` is not NULL, fills it with one line
 * that names the file, the tensor or the option, what was expected and what was found. Nothing here prints, exits or
 * aborts. Sizes are bytes unless a name says otherwise. Strings are UTF-8. Token ids are int32_t. There is no global
 * state: any number of engines live in one process. One thread at a time may use an engine and its sessions;
 * lamina_cancel() alone may be called from any thread and from a signal handler.
 *
 * Licence: Apache-2.0.
 */
#ifndef LAMINA_H
#define LAMINA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LAMINA_API __attribute__((visibility("default")))
#else
#define LAMINA_API
#endif

#define LAMINA_VERSION "0.1.0"

/* ---- errors ------------------------------------------------------------------------------------------------- */

typedef enum lamina_status {
    LAMINA_OK = 0,
    LAMINA_E_USAGE,       /* an argument or option cannot be meant */
    LAMINA_E_IO,          /* the system refused to open, read, write or rename */
    LAMINA_E_FORMAT,      /* a file's bytes are not what its format requires */
    LAMINA_E_UNSUPPORTED, /* well-formed, but this version does not compute it; the text names it */
    LAMINA_E_MEMORY,      /* the system gave no memory */
    LAMINA_E_BUDGET,      /* the memory budget is too small; the text says the least that would do */
    LAMINA_E_CANCELLED,   /* lamina_cancel() was called, or a callback asked to stop */
    LAMINA_E_CORRUPT,     /* a checksum or a read-back comparison failed */
    LAMINA_E_SPACE        /* the disk is full, or would be */
} lamina_status;

typedef struct lamina_error {
    lamina_status status;
    char text[1024]; /* one line, NUL-terminated, no newline at the end */
} lamina_error;

/* A few words for a status, e.g. "memory budget too small". Static storage. */
LAMINA_API const char *lamina_status_name(lamina_status status);

/* ---- opening ------------------------------------------------------------------------------------------------ */

typedef enum lamina_io {
    LAMINA_IO_AUTO = 0, /* io_uring where the system permits it, else pread */
    LAMINA_IO_URING,    /* asynchronous reads, past the page cache where the file system can */
    LAMINA_IO_PREAD,    /* a few reader threads, past the page cache where the file system can */
    LAMINA_IO_BUFFERED  /* reader threads through the page cache, dropped behind */
} lamina_io;

/* CPU kernels; every level gives the same bits. */
typedef enum lamina_isa {
    LAMINA_ISA_BEST = 0,
    LAMINA_ISA_SCALAR,
    LAMINA_ISA_AVX2,
    LAMINA_ISA_AVX512,
    LAMINA_ISA_NEON
} lamina_isa;

typedef enum lamina_kv { LAMINA_KV_F32 = 0, LAMINA_KV_F16 } lamina_kv;

typedef enum lamina_phase {
    LAMINA_PHASE_PACK,      /* unit: the file being written; done, total: bytes */
    LAMINA_PHASE_SURVEY,    /* before packing by a dtype: unit: the tensor being read; done, total: bytes */
    LAMINA_PHASE_VERIFY,    /* unit: the file being read */
    LAMINA_PHASE_CALIBRATE, /* before packing by a text: unit: the layer; done, total: units of all its passes */
    LAMINA_PHASE_PASS       /* unit: the layer; done, total: units of the pass; sent once a layer */
} lamina_phase;

typedef struct lamina_progress {
    lamina_phase phase;
    const char *unit; /* valid during the call */
    uint64_t done, total;
    uint64_t bytes; /* moved so far in this operation */
    double seconds; /* since this operation began */
    uint32_t rows;  /* token rows in the pass; 0 elsewhere */
} lamina_progress;

/* Called from the thread that called into the library. Returning false cancels (LAMINA_E_CANCELLED). */
typedef bool (*lamina_progress_fn)(void *user, const lamina_progress *progress);

/* Faults on purpose, for tests. All zero: none. */
typedef struct lamina_faults {
    uint64_t fail_alloc;       /* the N-th allocation fails, counted from 1 */
    uint64_t fail_read;        /* the N-th read of weights fails with EIO, counted from 1 */
    uint64_t short_read_every; /* every N-th read returns fewer bytes than asked */
    uint32_t read_delay_us;    /* added to each read: a slow disk */
} lamina_faults;

typedef struct lamina_options {
    uint32_t threads; /* compute threads; 0: one per core this process may use */
    lamina_io io;
    lamina_isa isa;            /* a cap: the best level not above it */
    const char *trace_path;    /* Chrome trace events are written here at lamina_close(); NULL: none */
    const char *ignore_config; /* comma-separated config.json keys to accept unread; NULL: none */
    lamina_progress_fn progress;
    void *progress_user;
    bool tokenizer_only; /* open only what tokenize and detokenize need */
    bool no_tokenizer;   /* do not look for a tokenizer */
    lamina_faults faults;
} lamina_options;

typedef struct lamina_engine lamina_engine;
typedef struct lamina_session lamina_session;

/* Reads what describes the model: configuration, tensor directories, tokenizer. No weights are read and no large
 * memory is taken. path: a Hugging Face folder, a GGUF file, a store, or a config.json alone (plans only).
 * options may be NULL. On success *engine is the caller's: lamina_close(). */
LAMINA_API lamina_status lamina_open(const char *path, const lamina_options *options, lamina_engine **engine,
                                     lamina_error *err);

/* Closes the engine. Its sessions must have been closed before. NULL is allowed. */
LAMINA_API void lamina_close(lamina_engine *engine);

/* ---- inspecting --------------------------------------------------------------------------------------------- */

typedef struct lamina_model_info {
    const char *family; /* the row of the table of families, e.g. "llama" */
    const char *source; /* "huggingface", "gguf", "store" or "config" */
    const char *path;   /* as given to lamina_open() */
    bool has_weights, has_tokenizer;
    uint32_t n_layers, hidden, vocab;
    uint32_t max_context;                /* tokens the model was trained for; 0: not said */
    uint64_t n_parameters, weight_bytes; /* bytes of the tensors that a pass uses */
    size_t n_tensors, n_axes;
    int32_t bos_token;         /* -1: none */
    const int32_t *eos_tokens; /* [n_eos] ids that end generation, from the model's own files */
    size_t n_eos;
} lamina_model_info;

typedef struct lamina_tensor_info {
    const char *name, *role, *dtype, *file; /* role: "q", "gate", "embed" ...; "" if unused; file: "" if none */
    int32_t layer;                          /* -1: not of a layer */
    uint32_t n_dims;
    uint64_t shape[4];      /* slowest-varying first, as safetensors writes it */
    uint64_t offset, bytes; /* in the file */
} lamina_tensor_info;

/* All strings live as long as the engine. */
LAMINA_API void lamina_model(const lamina_engine *engine, lamina_model_info *info);
LAMINA_API lamina_status lamina_tensor(const lamina_engine *engine, size_t index, lamina_tensor_info *info);
/* One value of an axis of the architecture, as text: name "mixer", value "gqa"; index < n_axes. */
LAMINA_API lamina_status lamina_axis(const lamina_engine *engine, size_t index, const char **name, const char **value);

typedef struct lamina_family_info {
    const char *name,
        *title; /* "gemma3_text", "Gemma 3"; title NULL: another row of this name has it, or none is meant */
    const char *const *model_types; /* of config.json besides the name; ends with NULL */
    const char *architecture;       /* general.architecture of GGUF; NULL: none */
} lamina_family_info;

/* A row of the table of families; false behind the last. Families with several variants have several rows. */
LAMINA_API bool lamina_family(size_t index, lamina_family_info *info);

/* ---- planning ----------------------------------------------------------------------------------------------- */

typedef struct lamina_budget {
    uint64_t memory;     /* bytes: peak resident size of the whole process; 0: what is free here less a margin */
    uint32_t context;    /* tokens a session can hold; 0: 2048 or the model's own maximum if that is less */
    uint32_t sessions;   /* sessions open at once; 0: one */
    uint32_t rows;       /* token rows per pass at most; 0: what the budget allows, up to `context` */
    uint32_t logit_rows; /* rows that may want logits per pass at no extra reading; 0: one */
    lamina_kv kv;
    uint64_t ring;             /* bytes of read-ahead; 0: chosen */
    uint64_t chunk;            /* bytes per read; 0: chosen */
    uint64_t pin_limit;        /* bytes of weights kept resident at most; 0: what the budget allows; 1: none */
    double device_bytes_per_s; /* for the prediction; 0: measured on the model's own files, or unknown */
} lamina_budget;

typedef struct lamina_plan_info {
    uint64_t budget_bytes;  /* the limit in force */
    bool budget_chosen;     /* true: memory was 0 and the limit is what was found free */
    uint64_t minimum_bytes; /* the least budget for this context, sessions and one row per pass */
    uint64_t predicted_peak_bytes;
    uint64_t process_bytes; /* program, libraries, tokenizer, tensor directory: resident already */
    uint64_t vector_bytes;  /* norms and biases, always resident */
    uint64_t kv_bytes, activation_bytes, ring_bytes, chunk_bytes, pinned_bytes;
    uint64_t embedding_bytes;         /* kept whole only when all else is resident; else its rows are read as needed */
    uint64_t weight_bytes;            /* of the tensors that a pass uses */
    uint64_t streamed_bytes_per_pass; /* read from the disk by each decode step; of experts what is expected */
    /* Mixtures of experts; all 0 for a dense model. */
    uint64_t expert_bytes;               /* of all routed experts */
    uint64_t expert_pool_bytes;          /* memory that they share; what is read stays there until pushed out */
    uint64_t expert_piece_bytes;         /* most of one read of them */
    uint64_t expert_read_bytes_per_pass; /* expected of a decode step, part of streamed_bytes_per_pass */
    uint64_t active_bytes_per_token;     /* of the weights that a token uses */
    uint32_t experts, experts_resident;  /* routed experts in all layers; how many the pool holds */
    uint32_t experts_per_token;          /* used in all layers */
    double expert_hit_rate;              /* expected: what was observed, else as if all were used alike */
    uint32_t context, sessions, rows, logit_rows;
    double device_bytes_per_s;  /* 0: unknown */
    double flops_per_s;         /* multiply and add counted as two; 0: unknown */
    double seconds_per_token;   /* predicted for decode; 0: unknown */
    double prompt_tokens_per_s; /* predicted for a prompt of `rows` tokens; 0: unknown */
} lamina_plan_info;

/* What a budget buys: a pure question, asked as often as one likes. On LAMINA_E_BUDGET info->minimum_bytes is set.
 * Works for a config.json without weights. */
LAMINA_API lamina_status lamina_plan(lamina_engine *engine, const lamina_budget *budget, lamina_plan_info *info,
                                     lamina_error *err);

/* Takes the memory of the plan and begins to read. Once per engine; sessions may follow. */
LAMINA_API lamina_status lamina_start(lamina_engine *engine, const lamina_budget *budget, lamina_plan_info *info,
                                      lamina_error *err);

/* ---- sessions ----------------------------------------------------------------------------------------------- */

/* context: tokens this session can hold, at most the plan's; 0: the plan's. Scalings that depend on a length
 * (dynamic NTK) use it. The session is the caller's: lamina_session_close(). */
LAMINA_API lamina_status lamina_session_open(lamina_engine *engine, uint32_t context, lamina_session **session,
                                             lamina_error *err);
LAMINA_API void lamina_session_close(lamina_session *session);
/* Tokens the session holds, and which. The pointer is valid until the session is next fed, rewound or closed. */
LAMINA_API size_t lamina_session_length(const lamina_session *session);
LAMINA_API const int32_t *lamina_session_tokens(const lamina_session *session);
/* Forgets all tokens from position `length` on. LAMINA_E_USAGE if a sliding window has already let go of what
 * would be needed; length 0 always works. */
LAMINA_API lamina_status lamina_session_rewind(lamina_session *session, size_t length, lamina_error *err);

/* Called once per row that wanted logits, in order. logits: [vocab] f32, valid during the call.
 * index: the row's place in the call that fed it. Returning false cancels. */
typedef bool (*lamina_logits_fn)(void *user, size_t index, const float *logits);

/* Feeds tokens [n] to one session, in as many passes as the plan's rows require. Afterwards
 * lamina_session_logits() has the logits after the last token. If on_logits is not NULL it also receives the logits
 * after every token from index logits_from on. On an error the session holds the tokens of the passes that were
 * completed. */
LAMINA_API lamina_status lamina_feed(lamina_session *session, const int32_t *tokens, size_t n, size_t logits_from,
                                     lamina_logits_fn on_logits, void *user, lamina_error *err);

typedef struct lamina_row {
    lamina_session *session; /* rows of one session must stand in the order of its tokens */
    int32_t token;
    bool want_logits; /* deliver the logits after this token */
} lamina_row;

/* One pass over the weights for rows [n] of any sessions of one engine; n at most the plan's rows. Every session's
 * last row updates its lamina_session_logits() if it wanted logits. on_logits may be NULL. */
LAMINA_API lamina_status lamina_pass(lamina_engine *engine, const lamina_row *rows, size_t n,
                                     lamina_logits_fn on_logits, void *user, lamina_error *err);

/* [vocab] f32: after the session's last token; NULL before any. Valid until the session is next fed. */
LAMINA_API const float *lamina_session_logits(const lamina_session *session);

/* Asks the pass, packing or verification under way to stop soon with LAMINA_E_CANCELLED; any thread, any signal
 * handler. The request is forgotten once it has been honoured or by lamina_cancel_clear(). */
LAMINA_API void lamina_cancel(lamina_engine *engine);
LAMINA_API void lamina_cancel_clear(lamina_engine *engine);

/* ---- sampling ----------------------------------------------------------------------------------------------- */

typedef struct lamina_sampling {
    float temperature;        /* 0: greedy */
    uint32_t top_k;           /* 0: off */
    float top_p;              /* 1 or 0: off */
    float min_p;              /* 0: off */
    float repetition_penalty; /* 1 or 0: off; as in CTRL (Keskar et al. 2019) */
    uint64_t seed;
} lamina_sampling;

/* Chooses the next token from the session's last logits. The same logits, settings, seed and position give the
 * same token on every machine. Ties go to the lower id. */
LAMINA_API lamina_status lamina_sample(lamina_session *session, const lamina_sampling *sampling, int32_t *token,
                                       lamina_error *err);

/* ---- text --------------------------------------------------------------------------------------------------- */

enum { LAMINA_NO_SPECIAL = 1 /* add no BOS or EOS */, LAMINA_PLAIN = 2 /* spellings of special tokens are text */ };

/* Text [bytes] -> ids. *n_ids is set to the number there are; ids [capacity] receives as many as fit (ids may be
 * NULL when capacity is 0). flags: LAMINA_NO_SPECIAL, LAMINA_PLAIN. */
LAMINA_API lamina_status lamina_tokenize(const lamina_engine *engine, const char *text, size_t bytes, unsigned flags,
                                         int32_t *ids, size_t capacity, size_t *n_ids, lamina_error *err);

/* Streaming: zero-initialise, then one id at a time. Complete UTF-8 characters only are emitted; what is incomplete
 * waits inside. */
typedef struct lamina_detokenizer {
    unsigned char pending[8];
    uint8_t n_pending;
    bool begun;        /* something has been seen: no leading space is stripped any more */
    bool keep_special; /* set by the caller: also spell special tokens */
    bool seen;         /* a token has been seen, though it may have had no text */
    bool space;        /* a space waits for what follows it */
} lamina_detokenizer;

/* Writes the text that id completes to out [capacity], NUL-terminated, and its length to *bytes. id -1 flushes: what
 * is incomplete comes out as U+FFFD. LAMINA_E_USAGE if the id is not in the vocabulary or out is too small: *bytes
 * is then the size needed. */
LAMINA_API lamina_status lamina_detokenize(const lamina_engine *engine, lamina_detokenizer *state, int32_t id,
                                           char *out, size_t capacity, size_t *bytes, lamina_error *err);

/* A conversation as the text that the model was trained to answer. */
typedef struct lamina_chat_options {
    const char *messages;  /* JSON: an array of objects, {"role": "user", "content": "..."} and what else is known */
    const char *tools;     /* JSON: an array of objects that describe functions; NULL: none */
    const char *documents; /* JSON: an array of objects; NULL: none */
    const char *variables; /* JSON: an object, further variables of the template ("enable_thinking"); NULL: none */
    const char
        *template_text; /* a chat template; NULL: the model's own or, where it has none, its family's known form */
    bool no_generation_prompt; /* do not open the answer at the end */
} lamina_chat_options;

/* Renders the chat template as transformers does: a bounded interpreter of Jinja that opens no file. *text [*bytes] is
 * NUL-terminated and the caller's: lamina_text_free(). It holds the special tokens that the template writes, BOS too,
 * so it is tokenized with LAMINA_NO_SPECIAL. LAMINA_E_UNSUPPORTED: no template is known. LAMINA_E_FORMAT: a wrong
 * template, one that raises an exception, or one that goes beyond its limits; the text names its line. LAMINA_E_USAGE:
 * JSON that cannot be read. Engines opened with tokenizer_only will do. */
LAMINA_API lamina_status lamina_render_chat(const lamina_engine *engine, const lamina_chat_options *chat, char **text,
                                            size_t *bytes, lamina_error *err);
LAMINA_API void lamina_text_free(const lamina_engine *engine, char *text); /* NULL is allowed */

/* ---- stores ------------------------------------------------------------------------------------------------- */

typedef struct lamina_pack_options {
    bool delete_original; /* remove each source file once all that came from it has been verified */
    uint64_t memory;      /* bytes of buffers; 0: 64 MiB */
    /* What becomes of the weights' types; NULL: every tensor is copied bit for bit.
     *   "packed"    bf16, f16 and f32 that is widened from these, without loss in fewer bytes, where that is less
     *   "original"  what was packed as it was before, byte for byte
     *   else        types of blocks, a pattern for each or none: "q4_k,layers[0-3]=q8_0,*.down=q6_k,head=packed";
     *               "bits=4.5" (of each weight that no pattern names, on average) or "size=3500M" (of all tensors):
     *               every matrix gets the type with which the answer changes least */
    const char *dtype;
    /* Judges what is quantised, and the distribution of bits, by what the model makes of a text (UTF-8, some ten
     * thousand tokens like those it will see), in passes over it within calibration_memory (bytes of the whole process;
     * 0: what is free here less a margin): the engine must not have been started. NULL: by the weights alone. An
     * interrupted packing that goes on does not read it again. */
    const char *calibration;
    size_t calibration_bytes;
    uint64_t calibration_memory;
} lamina_pack_options;

enum { LAMINA_PACK_CHANGES = 16, LAMINA_PACK_WORST = 8 };

typedef struct lamina_pack_change { /* tensors that came from one type and became one other, or the same */
    const char *from, *to;          /* static */
    uint32_t tensors;
    uint64_t bytes_before, bytes_after;
} lamina_pack_change;

typedef struct lamina_pack_tensor {
    char name[160]; /* cut where it is longer */
    const char *from, *to;
    uint64_t bytes_before, bytes_after;
    double error; /* relative, root of mean squares; 0: none, or written by an earlier run */
} lamina_pack_tensor;

typedef struct lamina_pack_info {
    uint64_t bytes_written, bytes_reused; /* reused: whole files found from an earlier, interrupted run */
    uint32_t files;
    double seconds;
    uint64_t bytes_before, bytes_after;              /* of all tensors, in the source and in the store */
    uint32_t n_changes, n_worst;                     /* n_changes 0: all was copied */
    lamina_pack_change changes[LAMINA_PACK_CHANGES]; /* by bytes, the most first; what has no room is left out */
    lamina_pack_tensor
        worst[LAMINA_PACK_WORST]; /* of what was changed: the largest error, then the least gained, first */
    /* Matrices that dtype asked to round and that were copied, the first of them, and why: "is quantised already". Of a
     * run that goes on with an earlier one 0. */
    uint32_t n_kept;
    uint64_t kept_bytes;
    char kept_name[160];
    const char *kept_why; /* static; NULL: n_kept is 0 */
} lamina_pack_info;

/* Writes the opened model as a store (a folder). Resumes what an earlier run left. options, info may be NULL. */
LAMINA_API lamina_status lamina_pack(lamina_engine *engine, const char *store_path, const lamina_pack_options *options,
                                     lamina_pack_info *info, lamina_error *err);

/* Finishes a store whose packing was interrupted after some of the original's files had been deleted, so that the model
 * opens no more: works from what the store itself recorded. source_path: the model's path as given now, or NULL: not
 * compared. options->progress reports and may cancel; options, pack, info may be NULL. LAMINA_E_USAGE: store_path is
 * not an interrupted store, or was begun from another model. */
LAMINA_API lamina_status lamina_pack_resume(const char *store_path, const char *source_path,
                                            const lamina_options *options, const lamina_pack_options *pack,
                                            lamina_pack_info *info, lamina_error *err);

/* Reads the opened store back against its checksums. LAMINA_E_CORRUPT names the first file that is wrong.
 * *bytes (may be NULL) counts what was read. */
LAMINA_API lamina_status lamina_verify(lamina_engine *engine, uint64_t *bytes, lamina_error *err);

/* ---- measuring ---------------------------------------------------------------------------------------------- */

typedef struct lamina_stats { /* since lamina_start() or lamina_stats_reset() */
    uint64_t passes, rows;
    uint64_t bytes_read;     /* asked of the device, weights only */
    double seconds;          /* inside passes */
    double stall_seconds;    /* of those, waiting for the disk with nothing to compute */
    double compute_seconds;  /* of those, in kernels */
    uint64_t peak_rss_bytes; /* of the process, by the system's account */
    uint64_t budget_bytes, minimum_bytes, predicted_peak_bytes, pinned_bytes, streamed_bytes_per_pass;
    uint64_t experts_wanted, expert_hits; /* routed experts that passes asked for; of those, whole in memory */
    uint64_t experts_resident;            /* whole in memory now */
    uint64_t expert_bytes_read;           /* part of bytes_read */
    uint64_t expert_missed_bytes;         /* of experts that were asked for and not there, as stored */
    uint64_t accounted_bytes;             /* held now by this engine through its accountant */
    double seconds_to_first_read;         /* from lamina_open() to the first read of weights */
    const char *io;                       /* the reader in use: "io_uring", "pread" or "buffered" */
    const char *io_note;                  /* why it is not the one asked for, or "" */
    const char *isa;                      /* the kernels in use */
    uint32_t threads, io_depth;
    uint64_t chunk_bytes;
} lamina_stats;

LAMINA_API void lamina_get_stats(const lamina_engine *engine, lamina_stats *stats);
LAMINA_API void lamina_stats_reset(lamina_engine *engine);

typedef enum lamina_measure_kind {
    LAMINA_MEASURE_DISK, /* bytes/s: the model's own files, the stream's own reader, nothing computed */
    LAMINA_MEASURE_RAM,  /* bytes/s: all threads reading a buffer larger than the caches */
    LAMINA_MEASURE_FMA   /* operations/s: f32 multiply-adds from registers, all threads, counted as two */
} lamina_measure_kind;

/* Measures this machine for about `seconds`. DISK needs lamina_start(). */
LAMINA_API lamina_status lamina_measure(lamina_engine *engine, lamina_measure_kind kind, double seconds,
                                        double *per_second, lamina_error *err);

#ifdef __cplusplus
}
#endif
#endif
