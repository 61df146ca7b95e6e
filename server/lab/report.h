/* SPDX-License-Identifier: MIT */
/* The lab's page: report.html, one file that asks nothing of anybody. It begins with the model to
 * choose for what somebody runs, and then shows why.
 */
#ifndef SERVER_LAB_REPORT_H
#define SERVER_LAB_REPORT_H

#include "server/lab/choice.h"

/* Write the page. Blocks. Returns 0 or a negative errno; then what was there before is left. */
int lab_write_report(const struct lab_findings *f, const char *path);
/* The table on the terminal and OUT_DIR/report.html once more, from results.json. Blocks. Returns 0,
 * or 1 with a line on stderr. */
int lab_report_again(const char *json_path, const char *out_dir);

#endif
