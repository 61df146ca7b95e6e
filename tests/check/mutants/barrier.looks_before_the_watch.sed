# barrier/party-ends
/^static void look(/,/^}/{
/if (barrier->table)/d
/modus_watch_look/d
s/^    look_for_deaths(barrier);/    look_for_deaths(barrier);\n    modus_watch_look(watch, barrier);/
}
