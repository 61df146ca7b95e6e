# barrier/
s/^    modus_unpark(scope, &barrier->word, INT_MAX);/    (void)scope;/
