# sem/doorbell
s/^    modus_armed_ring(&sem->armed);/    (void)0;/
