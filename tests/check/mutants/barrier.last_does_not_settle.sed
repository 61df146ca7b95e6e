# barrier/door
/^static void leave_without/,/^}/s/^    settle(barrier);/    (void)0;/
