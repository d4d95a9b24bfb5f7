/* GGUF files that lie: each must be refused, and in words that say what is wrong. */
#include "build.h"

enum { Q8 = 8, F32 = 0 };

typedef void (*writer)(bytes *b);

/* ---- heads ------------------------------------------------------------------------------------------------------ */

static void old_version(bytes *b)
{
    g_head(b, 1, 0, 0);
}

static void new_version(bytes *b)
{
    g_head(b, 4, 0, 0);
}

static void big_endian(bytes *b)
{
    put_text(b, "GGUF");
    put(b, "\0\0\0\3", 4);
    put_fill(b, 0, 64);
}

static void other_magic(bytes *b)
{
    put_text(b, "GGML");
    put_fill(b, 0, 64);
}

static void many_entries(bytes *b)
{
    g_head(b, 3, 0, UINT64_MAX);
    put_fill(b, 0, 64);
}

static void many_tensors(bytes *b)
{
    g_head(b, 3, (uint64_t)1 << 60, 0);
    put_fill(b, 0, 64);
}

/* ---- metadata --------------------------------------------------------------------------------------------------- */

/* A head that promises one entry, which the caller writes; enough bytes behind it for counts to be plausible. */
static void long_key(bytes *b)
{
    g_head(b, 3, 0, 1);
    put_number(b, UINT64_MAX, 8);
    put_fill(b, 'k', 100);
}

static void longer_key_than_allowed(bytes *b)
{
    g_head(b, 3, 0, 1);
    put_number(b, 65536, 8);
    put_fill(b, 'k', 70000);
}

static void empty_key(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_key(b, "", G_U32);
    put_number(b, 1, 4);
}

static void unprintable_key(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_key(b, "general\x1b[31m", G_U32);
    put_number(b, 1, 4);
}

static void unknown_value_type(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_key(b, "a", 13);
    put_number(b, 1, 8);
}

static void unknown_element_type(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_array(b, "a", 99, 1);
    put_number(b, 1, 8);
}

static void long_text(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_key(b, "a", G_TEXT);
    put_number(b, UINT64_MAX - 7, 8);
    put_fill(b, 'x', 100);
}

static void long_array(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_array(b, "a", G_U64, UINT64_MAX / 4);
    put_fill(b, 0, 100);
}

static void long_text_array(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_array(b, "a", G_TEXT, (uint64_t)1 << 61);
    put_fill(b, 0, 100);
}

static void text_array_with_a_long_text(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_array(b, "a", G_TEXT, 2);
    g_text(b, "x");
    put_number(b, 1000, 8);
    put_fill(b, 0, 100);
}

static void nested_array(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_array(b, "a", G_ARRAY, 1);
    put_fill(b, 0, 100);
}

static void strange_bool(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_key(b, "a", G_BOOL);
    put_number(b, 2, 1);
}

static void key_twice(bytes *b)
{
    g_head(b, 3, 0, 3);
    g_entry_u32(b, "b", 1);
    g_entry_u32(b, "a", 1);
    g_entry_u32(b, "b", 1);
}

static void alignment_of(bytes *b, uint32_t alignment)
{
    g_head(b, 3, 0, 2);
    g_entry_text(b, "general.architecture", "llama");
    g_entry_u32(b, "general.alignment", alignment);
}

static void zero_alignment(bytes *b)
{
    alignment_of(b, 0);
}

static void odd_alignment(bytes *b)
{
    alignment_of(b, 48);
}

static void huge_alignment(bytes *b)
{
    alignment_of(b, 0x80000000u);
}

static void text_alignment(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_entry_text(b, "general.alignment", "32");
}

static void no_architecture(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_entry_u32(b, "a", 1);
}

static void number_as_architecture(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_entry_u32(b, "general.architecture", 1);
}

static void strange_architecture(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_entry_text(b, "general.architecture", "lla%sma");
}

static void empty_architecture(bytes *b)
{
    g_head(b, 3, 0, 1);
    g_entry_text(b, "general.architecture", "");
}

static void an_adapter(bytes *b)
{
    g_head(b, 3, 0, 2);
    g_entry_text(b, "general.architecture", "llama");
    g_entry_text(b, "general.type", "adapter");
}

static void one_llama_entry(bytes *b)
{
    g_head(b, 3, 0, 2);
    g_entry_text(b, "general.architecture", "llama");
}

static void not_a_number(bytes *b)
{
    one_llama_entry(b);
    g_key(b, "llama.rope.freq_base", G_F32);
    put_number(b, 0x7fc00000, 4);
}

static void number_beyond_json(bytes *b)
{
    one_llama_entry(b);
    g_key(b, "llama.block_count", G_U64);
    put_number(b, UINT64_MAX, 8);
}

static void text_that_is_not_utf8(bytes *b)
{
    one_llama_entry(b);
    g_entry_text(b, "llama.x", "\xc0\xaf");
}

static void array_beyond_reason(bytes *b)
{
    one_llama_entry(b);
    g_array(b, "llama.x", G_U8, 70000);
    put_fill(b, 0, 70000);
}

static void text_as_factor(bytes *b)
{
    one_llama_entry(b);
    g_entry_text(b, "llama.rope.scaling.factor", "4");
}

static void number_as_scaling(bytes *b)
{
    one_llama_entry(b);
    g_entry_u32(b, "llama.rope.scaling.type", 4);
}

static void many_parts(bytes *b)
{
    one_llama_entry(b);
    g_entry_u32(b, "split.count", 4000000000u);
}

static void parts_without_a_number(bytes *b)
{
    one_llama_entry(b);
    g_entry_u32(b, "split.count", 2);
}

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

static void one_tensor(bytes *b)
{
    g_head(b, 3, 1, 1);
    g_entry_text(b, "general.architecture", "llama");
}

static void data(bytes *b, size_t n)
{
    g_align(b, 32);
    put_fill(b, 0, n);
}

static void five_dimensions(bytes *b)
{
    one_tensor(b);
    g_tensor(b, "t", 5, (const uint64_t[]){1, 1, 1, 1, 1}, F32, 0);
    data(b, 64);
}

static void huge_dimensions(bytes *b)
{
    one_tensor(b);
    g_text(b, "t");
    put_number(b, 0xffffffffu, 4);
    data(b, 64);
}

static void wrapping_shape(bytes *b)
{
    one_tensor(b);
    g_tensor(b, "t", 2, (const uint64_t[]){(uint64_t)1 << 32, (uint64_t)1 << 32}, F32, 0);
    data(b, 64);
}

static void wrapping_row(bytes *b)
{
    one_tensor(b);
    g_tensor(b, "t", 1, (const uint64_t[]){UINT64_MAX}, F32, 0);
    data(b, 64);
}

static void broken_block(bytes *b)
{
    one_tensor(b);
    g_tensor(b, "t", 2, (const uint64_t[]){33, 2}, Q8, 0);
    data(b, 640);
}

static void unknown_tensor_type(bytes *b)
{
    one_tensor(b);
    g_tensor(b, "t", 1, (const uint64_t[]){8}, 0xfffffffeu, 0);
    data(b, 64);
}

static void unaligned_offset(bytes *b)
{
    one_tensor(b);
    g_tensor(b, "t", 1, (const uint64_t[]){8}, F32, 4);
    data(b, 64);
}

static void wrapping_offset(bytes *b)
{
    one_tensor(b);
    g_tensor(b, "t", 1, (const uint64_t[]){8}, F32, UINT64_MAX - 31);
    data(b, 64);
}

static void offset_beyond(bytes *b)
{
    one_tensor(b);
    g_tensor(b, "t", 1, (const uint64_t[]){8}, F32, 4096);
    data(b, 64);
}

static void end_beyond(bytes *b)
{
    one_tensor(b);
    g_tensor(b, "t", 1, (const uint64_t[]){8}, F32, 32);
    data(b, 63);
}

static void foreign_beyond(bytes *b)
{
    one_tensor(b);
    g_tensor(b, "t", 1, (const uint64_t[]){256}, 500, 4096);
    data(b, 64);
}

static void empty_name(bytes *b)
{
    one_tensor(b);
    g_tensor(b, "", 1, (const uint64_t[]){8}, F32, 0);
    data(b, 64);
}

static void zero_in_name(bytes *b)
{
    one_tensor(b);
    put_number(b, 3, 8);
    put(b, "a\0b", 3);
    put_fill(b, 0, 64);
}

static void long_name(bytes *b)
{
    one_tensor(b);
    put_number(b, 5000, 8);
    put_fill(b, 'n', 6000);
}

static void two(bytes *b, const char *first, const char *second, uint64_t offset)
{
    g_head(b, 3, 2, 1);
    g_entry_text(b, "general.architecture", "llama");
    g_tensor(b, first, 1, (const uint64_t[]){16}, F32, 0);
    g_tensor(b, second, 1, (const uint64_t[]){16}, F32, offset);
    data(b, 256);
}

static void name_twice(bytes *b)
{
    two(b, "t", "t", 64);
}

static void overlap(bytes *b)
{
    two(b, "t", "u", 32);
}

static void same_place(bytes *b)
{
    two(b, "t", "u", 0);
}

#define W(f) f, #f
static const struct {
    writer write;
    const char *what;
    lamina_status status;
    const char *words;
} lying_files[] = {
    {W(old_version), LAMINA_E_UNSUPPORTED, "GGUF version 1: expected 2 or 3"},
    {W(new_version), LAMINA_E_UNSUPPORTED, "GGUF version 4"},
    {W(big_endian), LAMINA_E_UNSUPPORTED, "big-endian"},
    {W(other_magic), LAMINA_E_FORMAT, "expected a GGUF file"},
    {W(many_entries), LAMINA_E_FORMAT, "18446744073709551615 metadata entries do not fit"},
    {W(many_tensors), LAMINA_E_FORMAT, "1152921504606846976 tensors do not fit"},
    {W(long_key), LAMINA_E_FORMAT, "a metadata key of 18446744073709551615 bytes"},
    {W(longer_key_than_allowed), LAMINA_E_FORMAT, "a metadata key of 65536 bytes: expected 1 to 65535"},
    {W(empty_key), LAMINA_E_FORMAT, "a metadata key of 0 bytes"},
    {W(unprintable_key), LAMINA_E_FORMAT, "not printable ASCII"},
    {W(unknown_value_type), LAMINA_E_FORMAT, "metadata a: 13 is not a type of metadata"},
    {W(unknown_element_type), LAMINA_E_FORMAT, "metadata a: 99 is not a type"},
    {W(long_text), LAMINA_E_FORMAT, "ends inside metadata a"},
    {W(long_array), LAMINA_E_FORMAT, "elements of type uint64 do not fit"},
    {W(long_text_array), LAMINA_E_FORMAT, "2305843009213693952 strings do not fit"},
    {W(text_array_with_a_long_text), LAMINA_E_FORMAT, "ends inside metadata a"},
    {W(nested_array), LAMINA_E_UNSUPPORTED, "metadata a: an array of arrays"},
    {W(strange_bool), LAMINA_E_FORMAT, "metadata a: expected a bool of 0 or 1, found 2"},
    {W(key_twice), LAMINA_E_FORMAT, "metadata b stands twice"},
    {W(zero_alignment), LAMINA_E_FORMAT, "general.alignment: expected a power of two"},
    {W(odd_alignment), LAMINA_E_FORMAT, "general.alignment: expected a power of two"},
    {W(huge_alignment), LAMINA_E_FORMAT, "general.alignment: expected a power of two"},
    {W(text_alignment), LAMINA_E_FORMAT, "general.alignment: expected a power of two"},
    {W(no_architecture), LAMINA_E_FORMAT, "no general.architecture"},
    {W(number_as_architecture), LAMINA_E_FORMAT, "no general.architecture"},
    {W(strange_architecture), LAMINA_E_FORMAT, "general.architecture: expected a name"},
    {W(empty_architecture), LAMINA_E_FORMAT, "general.architecture: expected a name"},
    {W(an_adapter), LAMINA_E_UNSUPPORTED, "general.type is \"adapter\""},
    {W(not_a_number), LAMINA_E_FORMAT, "metadata llama.rope.freq_base: expected finite numbers"},
    {W(number_beyond_json), LAMINA_E_FORMAT, "metadata llama.block_count: expected finite numbers below 2^63"},
    {W(text_that_is_not_utf8), LAMINA_E_FORMAT, "metadata llama.x"},
    {W(array_beyond_reason), LAMINA_E_FORMAT, "at most 65536 elements"},
    {W(text_as_factor), LAMINA_E_FORMAT, "llama.rope.scaling.factor: expected a number"},
    {W(number_as_scaling), LAMINA_E_FORMAT, "llama.rope.scaling.type: expected a short string"},
    {W(many_parts), LAMINA_E_FORMAT, "split.count: expected at most 99999 parts"},
    {W(parts_without_a_number), LAMINA_E_FORMAT, "expected part 0 of 2"},
    {W(five_dimensions), LAMINA_E_FORMAT, "tensor t: expected at most 4 dimensions, found 5"},
    {W(huge_dimensions), LAMINA_E_FORMAT, "found 4294967295"},
    {W(wrapping_shape), LAMINA_E_FORMAT, "tensor t: its shape has more than 64 bits of bytes"},
    {W(wrapping_row), LAMINA_E_FORMAT, "more than 64 bits of bytes"},
    {W(broken_block), LAMINA_E_FORMAT, "rows of 33 elements are not whole blocks of 32 (q8_0)"},
    {W(unknown_tensor_type), LAMINA_E_FORMAT, "4294967294 is not a type of tensor"},
    {W(unaligned_offset), LAMINA_E_FORMAT, "offset 4 is not a multiple of the alignment 32"},
    {W(wrapping_offset), LAMINA_E_FORMAT, "begins at byte 18446744073709551584 of the data"},
    {W(offset_beyond), LAMINA_E_FORMAT, "begins at byte 4096 of the data, beyond the file"},
    {W(end_beyond), LAMINA_E_FORMAT, "do not lie inside the file"},
    {W(foreign_beyond), LAMINA_E_FORMAT, "begins at byte 4096 of the data, beyond the file"},
    {W(empty_name), LAMINA_E_FORMAT, "a tensor's name of 0 bytes"},
    {W(zero_in_name), LAMINA_E_FORMAT, "holds a zero byte"},
    {W(long_name), LAMINA_E_FORMAT, "a tensor's name of 5000 bytes"},
    {W(name_twice), LAMINA_E_FORMAT, "tensor t stands twice"},
    {W(overlap), LAMINA_E_FORMAT, "tensors t and u overlap"},
    {W(same_place), LAMINA_E_FORMAT, "tensors t and u overlap"},
};

static void lies(void)
{
    folder f = folder_new();
    for (size_t i = 0; i < sizeof lying_files / sizeof *lying_files; i++) {
        bytes b = {0};
        lying_files[i].write(&b);
        write_bytes(&f, "model.gguf", b.data, b.n);
        drop(&b);
        bool before = test_now.current_failed;
        expect_refusal(in(&f, "model.gguf"), lying_files[i].status, lying_files[i].words);
        if (test_now.current_failed && !before) printf("  which was: %s\n", lying_files[i].what);
    }
    printf("  %zu files\n", sizeof lying_files / sizeof *lying_files);
    folder_remove(&f);
}

static void whole_file(bytes *b)
{
    g_head(b, 3, 2, 4);
    g_entry_text(b, "general.architecture", "llama");
    g_entry_u32(b, "llama.block_count", 1);
    g_array(b, "tokenizer.ggml.tokens", G_TEXT, 2);
    g_text(b, "one");
    g_text(b, "two");
    g_array(b, "tokenizer.ggml.scores", G_F32, 2);
    put_fill(b, 0, 8);
    g_tensor(b, "a", 2, (const uint64_t[]){32, 2}, Q8, 0);
    g_tensor(b, "b", 1, (const uint64_t[]){8}, F32, 96);
    data(b, 128);
}

static void cut_short_at_every_byte(void)
{
    folder f = folder_new();
    bytes b = {0};
    whole_file(&b);
    for (size_t n = 0; n < b.n && !test_now.current_failed; n++) {
        write_bytes(&f, "model.gguf", b.data, n);
        expect_refusal(in(&f, "model.gguf"), LAMINA_E_FORMAT, "model.gguf");
    }
    write_bytes(&f, "model.gguf", b.data, b.n);
    expect_open(in(&f, "model.gguf"));
    drop(&b);
    folder_remove(&f);
}

static void every_byte_changed(void)
{
    folder f = folder_new();
    bytes b = {0};
    whole_file(&b);
    for (size_t i = 0; i < b.n - 128; i++) {
        static const unsigned char flips[] = {1, 0x80, 0xff};
        for (size_t k = 0; k < sizeof flips; k++) {
            b.data[i] ^= flips[k];
            write_bytes(&f, "model.gguf", b.data, b.n);
            b.data[i] ^= flips[k];
            opened o = open_path(in(&f, "model.gguf"));
            CHECK(o.status == LAMINA_OK || o.status == LAMINA_E_FORMAT || o.status == LAMINA_E_UNSUPPORTED,
                  "byte %zu: status %d", i, o.status);
            CHECK(o.status == LAMINA_OK || o.err.text[0], "byte %zu: no text", i);
            close_opened(&o);
        }
    }
    drop(&b);
    folder_remove(&f);
}

/* A count of strings that the file's length allows, but its bytes do not keep: memory must follow the bytes. */
static void counts_take_no_memory(void)
{
    folder f = folder_new();
    bytes b = {0};
    g_head(&b, 3, 0, 1);
    g_array(&b, "a", G_TEXT, 1000000);
    put_number(&b, UINT64_MAX, 8);
    put_fill(&b, 0, 8000000);
    write_bytes(&f, "model.gguf", b.data, b.n);
    drop(&b);
    opened o = open_path(in(&f, "model.gguf"));
    CHECK(o.status == LAMINA_E_FORMAT, "status %d", o.status);
    CHECK(memory_peak(o.m) < 600000, "%llu bytes were taken; the first piece is 262144",
          (unsigned long long)memory_peak(o.m));
    close_opened(&o);
    folder_remove(&f);
}

TEST_MAIN(T(lies), T(cut_short_at_every_byte), T(every_byte_changed), T(counts_take_no_memory))
