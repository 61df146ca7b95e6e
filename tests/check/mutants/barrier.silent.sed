# barrier/
s/^    modus_cond_notify_all(&barrier->changed);/    (void)0;/
