# ring-process/producer queue-process/producer
s/^        change(slot, state, ring_state(at, TOMB, 0));/        (void)0;/
