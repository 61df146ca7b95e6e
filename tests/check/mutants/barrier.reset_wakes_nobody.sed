# barrier/reset
s/^        set_state(barrier, RESETTING);/        barrier->state = RESETTING;/
