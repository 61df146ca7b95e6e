# participant/
/^static bool bury(struct modus_arena \*arena, int id)$/,/^}/{
s/^    MODUS_FAULT(MODUS_FAULT_BURY_FOUND);/    free_slot(slot);\n    unlock_registry(arena);\n    lock_registry(arena);/
s/^    free_slot(slot);$/    (void)slot;/
}
