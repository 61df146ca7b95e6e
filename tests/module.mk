# Tests: unit programs (cmocka), replayed fuzz corpora, and the integration suite on a real server.
# `make test` is all of them, whatever fails, and their sum; T=word runs only the unit programs and
# integration tests whose name holds the word.

T ?=
UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNIT     := $(UNIT_SRC:%.c=$(BUILD)/%)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ     := $(FUZZ_SRC:%.c=$(BUILD)/%)
FUZZ_SECONDS ?= 60
PYTEST   := /usr/bin/python3 -m pytest -q -p no:cacheprovider

# Interleavings: the primitives' own sources, compiled a second time with the checker's hooks in
# front (tests/check/check.h), and once more for each mutant, which is such a source with one step
# broken by a sed script: <source>.<what>.sed, whose first line says which scenarios must fail.
CHECK_HOOKED := $(addprefix $(BUILD)/tests/check/hooked/,$(addsuffix .o,lock rlock rwlock cond event sem gate \
                barrier doorbell queue ring ring_thread ring_process stock stock_line participant arena result))
CHECK_SRC    := $(wildcard tests/check/*.c)
CHECK_OBJ    := $(CHECK_SRC:%.c=$(BUILD)/%.o) $(addprefix $(BUILD)/concurrency/,context.o fault.o robust.o self.o)
CHECK        := $(BUILD)/tests/check/check
CHECK_FLAGS  := -include tests/check/hooks.h -fno-strict-aliasing -Wno-shadow
MUTANT_NAMES := $(notdir $(basename $(wildcard tests/check/mutants/*.sed)))
MUTANTS      := $(addprefix $(BUILD)/tests/check/mutants/,$(MUTANT_NAMES))

.PHONY: test test-run harness outside unit integration integration-slow asan tsan fuzz fuzz-replay bench

test: packages-test ## install what tests need, build, run all of them
	$(Q)$(MAKE) --no-print-directory test-run

# What does not build stops at once; what fails does not keep the other parts from running.
PARTS ?= headers harness outside unit fuzz-replay interleavings mutants models-hold $(if $(T),,demo-run) \
         integration integration-slow
test-run: $(MODUS) $(UNIT) $(if $(filter fuzz-replay,$(PARTS)),$(FUZZ)) \
          $(if $(filter interleavings,$(PARTS)),$(CHECK)) $(if $(filter mutants,$(PARTS)),$(MUTANTS))
	$(Q)sh tests/suite.sh '$(MAKE) --no-print-directory' $(PARTS)

harness:
	$(Q)sh tests/harness.sh

outside: toolbox
	$(Q)sh tests/outside.sh '$(MAKE) --no-print-directory' '$(CC)'

$(UNIT): $(BUILD)/%: $(BUILD)/%.o $(LIBMODUS)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

unit: $(UNIT)
	$(Q)sh tests/unit.sh '$(T)' $(UNIT)

# A fuzz target is one function; outside of the fuzz variant a plain main replays its corpus.
ifeq ($(VARIANT),fuzz)
$(FUZZ): $(BUILD)/%: $(BUILD)/%.o $(LIBMODUS)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LIBS)
else
$(FUZZ): $(BUILD)/%: $(BUILD)/%.o $(BUILD)/tests/fuzz/replay.o $(LIBMODUS)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
endif

fuzz-replay: $(FUZZ)
	$(Q)bad=0; for f in $(FUZZ); do $$f tests/fuzz/corpus/$${f##*/fuzz_} || \
	    { echo "fuzz: $$f ended with status $$?"; bad=1; }; done; exit $$bad

# Most of these tests wait most of the time, so there are more at once than CPUs; those marked slow
# take all that there is, and come one by one.
AT_ONCE ?= $(shell echo $$((3 * $$(nproc))))
integrate = $(Q)MODUS=$(abspath $(MODUS)) $(PYTEST) -m $(1) tests/integration $(if $(T),-k '$(T)',$(BRIEFLY))
integration: $(MODUS)
	$(call integrate,'not slow' -n $(AT_ONCE))

integration-slow: $(MODUS)
	$(call integrate,slow)

# Interleavings, from here on.
CHECK_MORE   ?= 1
CHECK_RANDOM ?= 20000
CHECK_SECONDS ?= 120
CHECK_JOBS   := --jobs $(shell nproc)

.PHONY: check-interleavings interleavings mutants

$(filter $(BUILD)/tests/check/check_%,$(CHECK_OBJ)): private ALL_CFLAGS += $(CHECK_FLAGS)

# The arena of all other scenarios is the checker's.
CHECK_ARENA := -Dmodus_watch_look=real_watch_look -Dmodus_scope_fits=real_scope_fits \
               $(foreach f,open close alloc free of untouched,-Dmodus_arena_$(f)=real_arena_$(f))
$(BUILD)/tests/check/hooked/arena.o: private CHECK_FLAGS += $(CHECK_ARENA)
$(filter $(BUILD)/tests/check/mutants/arena.%,$(MUTANTS:=.o)): private CHECK_FLAGS += $(CHECK_ARENA)

$(BUILD)/tests/check/hooked/%.o: concurrency/%.c $(BUILD)/.flags
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(CHECK_FLAGS) -MMD -MP -c -o $@ $<

$(CHECK): $(CHECK_OBJ) $(CHECK_HOOKED)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^

mutated = concurrency/$(firstword $(subst ., ,$*)).c
.SECONDEXPANSION:
$(BUILD)/tests/check/mutants/%.c: tests/check/mutants/%.sed $$(mutated)
	$(Q)mkdir -p $(@D)
	$(Q)sed -f $< $(mutated) > $@
	$(Q)! cmp -s $(mutated) $@ || { rm -f $@; echo 'check: $< changes nothing'; exit 1; }

$(BUILD)/tests/check/mutants/%.o: $(BUILD)/tests/check/mutants/%.c $(BUILD)/.flags
	$(call say,CC,$@)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(CHECK_FLAGS) -w -MMD -MP -c -o $@ $<

$(MUTANTS): $(BUILD)/tests/check/mutants/%: $(BUILD)/tests/check/mutants/%.o $(CHECK_OBJ) $(CHECK_HOOKED)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $< $(CHECK_OBJ) \
	    $(filter-out %/hooked/$(firstword $(subst ., ,$*)).o,$(CHECK_HOOKED))

# The short form: every scenario within its own bound; with store buffers those whose stores are not
# all seq_cst, which between processes they are.
CHECK_TSO := lock/ rlock/ cond/ event/ sem/ queue/ ring-thread/ linear/

interleavings: $(CHECK)
	$(Q)$(CHECK) $(CHECK_JOBS) --random 1000 $(T)
	$(Q)$(CHECK) $(CHECK_JOBS) --tso --switches 1 $(or $(T),$(CHECK_TSO))

MUTANTS_WANTED = $(if $(T),$(foreach m,$(MUTANT_NAMES),$(if $(findstring $(T),$(m)),$(m))),$(MUTANT_NAMES))

mutants: $(MUTANTS)
	$(Q)bad=0; for m in $(MUTANTS_WANTED); do \
	    $(BUILD)/tests/check/mutants/$$m --random 5000 --mutant $$m \
	        $$(sed -n '1s/^# //p' tests/check/mutants/$$m.sed) || bad=1; done; exit $$bad

check-interleavings: $(CHECK) mutants ## all interleavings with CHECK_MORE (1) switches more, CHECK_SECONDS (120) a scenario at most, and CHECK_RANDOM runs by chance
	$(Q)$(CHECK) $(CHECK_JOBS) --more $(CHECK_MORE) --seconds $(CHECK_SECONDS) --random $(CHECK_RANDOM) $(T)
	$(Q)$(CHECK) $(CHECK_JOBS) --tso --more $(CHECK_MORE) --seconds $(CHECK_SECONDS) --random $(CHECK_RANDOM) $(or $(T),$(CHECK_TSO))

# Chaos: its short form is a unit program like others.
SECONDS ?= 60
.PHONY: chaos
chaos: $(BUILD)/tests/unit/test_concurrency_chaos ## kill users of shared objects every 2 ms or so for SECONDS (60)
	$(Q)MODUS_CHAOS_SECONDS=$(SECONDS) $<

# Models, for spin. The broken variants of each are for make models alone.
MODELS := $(wildcard tests/models/*.pml)
models_of = $(Q)sh tests/models.sh '$(CC)' '$(abspath $(BUILD))/tests/models' '$(1)' $(MODELS)

.PHONY: models models-hold
models: packages-test ## check the Promela models, and that their broken variants are found out
	$(call models_of,run broken)

models-hold:
	$(call models_of,run)

# Under the sanitizers the suite leaves out what takes seconds. With BRIEF=1 each model is switched to one
# other, under asan it runs over one transport, and under tsan only models with threads run; waiting for
# deadlines, which are stretched there, takes longest: fewer of them meet their limits.
SWITCHES := process-to-coroutine or coroutine-to-event-loop or event-loop-to-hybrid or \
            hybrid-to-thread-pool or thread-pool-to-prefork or prefork-to-process
ASAN_LIMITS := process-tls or prefork-plain or thread-pool-tls or event-loop-plain
ASAN_NOT    := [process-plain or [prefork-tls or [thread-pool-plain or [hybrid-tls or [event-loop-tls or \
               [coroutine-plain
TSAN_LIMITS := thread-pool-plain or event-loop-tls
TSAN_NOT    := [process or [prefork
sanitized = $(Q)MODUS_TEST_SLOW=$(2) $(MAKE) --no-print-directory VARIANT=$(1) test-run PARTS='$(3)' \
    BRIEFLY='$(if $(BRIEF),-k "(not limits or $(4)) and (not to- or $(SWITCHES)) and not ($(5))")'

asan: packages-test ## tests under the address and undefined-behaviour sanitizers; BRIEF=1
	+$(call sanitized,asan,3,unit fuzz-replay integration,$(ASAN_LIMITS),$(ASAN_NOT))

tsan: packages-test ## tests under the thread sanitizer; BRIEF=1
	+$(call sanitized,tsan,5,unit integration,$(TSAN_LIMITS),$(TSAN_NOT))

fuzz: packages-test ## fuzz each target for FUZZ_SECONDS (60)
	$(Q)$(MAKE) --no-print-directory VARIANT=fuzz fuzz-run

.PHONY: fuzz-run
fuzz-run: $(FUZZ)
	$(Q)for f in $(FUZZ); do name=$${f##*/fuzz_}; mkdir -p $(BUILD)/corpus/$$name; \
	    echo "fuzz: $$name, $(FUZZ_SECONDS) s"; \
	    $$f -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=4096 -print_final_stats=0 -verbosity=0 \
	        -artifact_prefix=$(BUILD)/ $(BUILD)/corpus/$$name tests/fuzz/corpus/$$name || exit 1; done

LIMITS := $(addprefix $(BUILD)/tests/bench/,limit_epoll limit_fork limit_sendfile)
$(LIMITS): $(BUILD)/%: $(BUILD)/%.o
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $< $(if $(findstring fork,$@),-Wl$(comma)--no-as-needed $(LIBS))

comma := ,
bench: packages-bench ## measure every model beside nginx, Apache and bare loops; QUICK=1, LOADS=, SERVERS=
	$(Q)$(MAKE) --no-print-directory bench-run

.PHONY: bench-run
bench-run: $(MODUS) $(LIMITS)
	$(Q)/usr/bin/python3 -B tests/bench/bench.py --build $(BUILD) --json $(BUILD)/bench.json \
	    --markdown $(BUILD)/bench.md $(if $(QUICK),--quick) $(if $(LOADS),--loads $(LOADS)) $(if $(SERVERS),--servers $(SERVERS))

# A peer is one program of the toolbox benchmark; the libraries of some may not be there.
PEER_DIR  := tests/bench/toolbox
PEER_LIBS  = $(strip $(shell pkg-config --libs $(1) 2>/dev/null))
ifneq ($(filter bench-toolbox-run,$(MAKECMDGOALS)),)
PEER_LIBS_glib    := $(call PEER_LIBS,glib-2.0)
PEER_LIBS_apr     := $(call PEER_LIBS,apr-util-1 apr-1)
PEER_LIBS_ck      := $(call PEER_LIBS,ck)
PEER_LIBS_uv      := -luv
PEER_LIBS_modus   := -luv
PEER_LIBS_pthread := -pthread
PEERS_BUILT := $(foreach p,modus pthread glib apr ck uv,$(if $(PEER_LIBS_$(p)),$(BUILD)/$(PEER_DIR)/peer_$(p)))
$(BUILD)/$(PEER_DIR)/peer_glib.o: private ALL_CPPFLAGS += $(shell pkg-config --cflags glib-2.0 2>/dev/null | sed 's/-I/-isystem /g')
$(BUILD)/$(PEER_DIR)/peer_apr.o: private ALL_CPPFLAGS += $(shell pkg-config --cflags apr-util-1 apr-1 2>/dev/null | sed 's/-I/-isystem /g')
$(BUILD)/$(PEER_DIR)/peer_modus: $(patsubst %.c,$(BUILD)/%.o,$(wildcard $(PEER_DIR)/peer_modus_*.c))
$(PEERS_BUILT): $(BUILD)/$(PEER_DIR)/peer_%: $(BUILD)/$(PEER_DIR)/peer_%.o $(BUILD)/$(PEER_DIR)/harness.o $(LIBMODUS)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(LIBMODUS) $(PEER_LIBS_$*)
endif

bench-toolbox: packages-bench-toolbox ## the toolbox beside glibc, GLib, APR, ck, libuv, CPython; QUICK=1, ROWS=, PEERS=
	$(Q)$(MAKE) --no-print-directory bench-toolbox-run

.PHONY: bench-toolbox bench-toolbox-run
bench-toolbox-run: $(PEERS_BUILT)
	$(Q)/usr/bin/python3 -B tests/bench/toolbox_bench.py --build $(BUILD) --json $(BUILD)/bench-toolbox.json \
	    --markdown $(BUILD)/bench-toolbox.md $(if $(QUICK),--quick) $(if $(ROWS),--rows $(ROWS)) $(if $(PEERS),--peers $(PEERS))

# The study notes' claims, each as a small program part that runs and checks it.
DEMO := $(BUILD)/tests/demo/demo
$(DEMO): $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/demo/*.c)) $(LIBMODUS)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

.PHONY: demo demo-run
demo: packages-build ## run the claims of the study notes; ROW=L5 one of them
	$(Q)$(MAKE) --no-print-directory demo-run

demo-run: $(DEMO)
	$(Q)$(DEMO) $(ROW)
