# barrier/reset
s/^        set_state(barrier, RESETTING);/        atomic_fetch_or(\&barrier->word, RESETTING);/
