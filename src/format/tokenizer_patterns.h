/* Patterns of byte-level pre-tokenizers that are known by name only: in Oniguruma's spelling, as tokenizer.json files
 * of the same models write them. */
#ifndef LAMINA_FORMAT_TOKENIZER_PATTERNS_H
#define LAMINA_FORMAT_TOKENIZER_PATTERNS_H

#define CONTRACTIONS   "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL           "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define PATTERN_LLAMA3 CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" TAIL
#define PATTERN_QWEN2  CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" TAIL
#define UPPER          "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER          "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define OTHER          "[^\\r\\n\\p{L}\\p{N}]?"
#define TAIL_SLASH     "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define PATTERN_TEKKEN OTHER UPPER "*" LOWER "+|" OTHER UPPER "+" LOWER "*|\\p{N}" TAIL_SLASH
#define PATTERN_GPT4O                                                                                                  \
    OTHER UPPER "*" LOWER "+" CONTRACTIONS "?|" OTHER UPPER "+" LOWER "*" CONTRACTIONS "?|\\p{N}{1,3}" TAIL_SLASH
/* Kimi: the classes less the ideographs, which are pieces of their own. */
#define NOT_HAN(class) "(?:(?!\\p{Han})" class ")"
#define PATTERN_KIMI                                                                                                   \
    "\\p{Han}+|" OTHER NOT_HAN(UPPER) "*" NOT_HAN(LOWER) "+" CONTRACTIONS "?|" OTHER NOT_HAN(UPPER) "+" NOT_HAN(       \
        LOWER) "*" CONTRACTIONS "?|\\p{N}{1,3}" TAIL

#endif
