# barrier/rounds barrier/three
/^static int enter/,/^}/s/== DRAINING || state == RESETTING)/== DRAINING \&\& 0)/
