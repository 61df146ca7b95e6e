# barrier/rounds barrier/three
/^static int enter/,/^}/s/while (rc == 0 && (barrier->state == DRAINING/while (0 \&\& rc == 0 \&\& (barrier->state == DRAINING/
