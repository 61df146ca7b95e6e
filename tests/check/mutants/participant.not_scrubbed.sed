# dies
/^static bool bury(struct modus_arena \*arena, int id)$/,/^}/s/^    scrub(arena, id);/    (void)0;/
