/* SPDX-License-Identifier: MIT */
/* A plain main for the fuzz targets: gives every file of the corpora named as arguments to the
 * target once, so that old findings are tried at every test run, with any compiler. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    enum { MOST = 1 << 20 };
    FILE *f = fopen(path, "rb");
    if (!f)
        return 0;
    uint8_t *data = malloc(MOST);
    size_t size = data ? fread(data, 1, MOST, f) : 0;
    fclose(f);
    /* a block of exactly its size, so that a read behind its end is seen */
    uint8_t *exact = realloc(data, size ? size : 1);
    if (exact)
        LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return 1;
}

int main(int argc, char **argv)
{
    int files = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        struct dirent *entry;
        char path[4096];
        while (dir && (entry = readdir(dir)) != NULL) {
            if (entry->d_name[0] == '.')
                continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
            files += replay_file(path);
        }
        if (dir)
            closedir(dir);
    }
    printf("  fuzz  %s: %d inputs replayed\n", argv[0], files);
    return files ? 0 : 1;
}
