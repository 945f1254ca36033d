/* How many words a text has: runs of anything but blanks. */
#include <ctype.h>
#include <stddef.h>

long count_words(const char *text, size_t length) {
    long words = 0;
    int inside = 0;
    for (size_t at = 0; at < length; at++) {
        int blank = isspace((unsigned char)text[at]);
        words += !blank && !inside;
        inside = !blank;
    }
    return words;
}
