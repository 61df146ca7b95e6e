# ring-process/consumer queue-process/consumer
/^static void scrub_slot/,/^}/s/^        change(slot, state, ring_state(at + ring->mask + 1, EMPTY, 0));/        (void)0;/
