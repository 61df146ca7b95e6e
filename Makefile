# Modus: one non-recursive Makefile. Each room adds a module.mk that says what is special about it;
# sources are found by name, so no file is listed twice. Objects live in build/<variant>/ and
# variants never mix: release, debug, asan, tsan, fuzz.
#
#   make run          a first look: installs what is missing, builds, serves conf/modus.conf
#   make test         everything that is tested
#   make help         all targets
#
# CC CFLAGS LDFLAGS PREFIX DESTDIR are yours; V=1 shows the commands, WERROR=0 relaxes.

VERSION  := 0.1.0
VARIANT  ?= release
PREFIX   ?= /usr/local
BUILD    := build/$(VARIANT)
# The packages that a machine needs; kept where both `make run` and `make test` read them.
PACKAGES_BUILD := gcc libc6-dev pkg-config libuv1-dev libssl-dev libconfuse-dev node-llhttp media-types
PACKAGES_TEST  := $(PACKAGES_BUILD) libcmocka-dev clang libclang-rt-14-dev llvm wrk curl \
                  nghttp2-client slowhttptest openssl python3 python3-pytest python3-pytest-xdist procps spin gdb \
                  python3-prometheus-client chromium fonts-dejavu-core
PACKAGES_BENCH := $(PACKAGES_TEST) nginx apache2
PACKAGES_BENCH_TOOLBOX := $(PACKAGES_BUILD) libglib2.0-dev libapr1-dev libaprutil1-dev libck-dev python3

ifeq ($(origin CC),default)
CC := gcc
endif
WERROR ?= 1
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$(1)' '$(2)')

# --- flags ----------------------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes \
            -Wpointer-arith -Wcast-qual -Wwrite-strings -Wvla -Wundef -Wformat=2 -Wimplicit-fallthrough
ifneq ($(WERROR),0)
WARNINGS += -Werror
endif
HARDENING := -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE
HARDLINK  := -pie -Wl,-z,relro,-z,now,-z,noexecstack
FORTIFY   := -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2

flags_release := -O2 -g $(FORTIFY)
flags_debug   := -O0 -g3 -DMODUS_DEBUG=1
flags_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined -DMODUS_DEBUG=1
flags_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread -DMODUS_DEBUG=1
flags_fuzz    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined -DMODUS_DEBUG=1
link_asan     := -fsanitize=address,undefined
link_tsan     := -fsanitize=thread
link_fuzz     := -fsanitize=address,undefined
ifeq ($(VARIANT),fuzz)
CC := clang
endif
ifeq ($(filter $(VARIANT),release debug asan tsan fuzz),)
$(error VARIANT is one of release, debug, asan, tsan, fuzz; not $(VARIANT))
endif

# llhttp: the system's where pkg-config knows it, else Debian's C sources, compiled strict.
LLHTTP_PC := $(shell pkg-config --exists libllhttp 2>/dev/null && echo yes)
LLHTTP_DIR := /usr/share/llhttp
ifeq ($(LLHTTP_PC),yes)
LLHTTP_CFLAGS := $(shell pkg-config --cflags libllhttp)
LLHTTP_LIBS   := $(shell pkg-config --libs libllhttp)
LLHTTP_OBJS   :=
else
LLHTTP_CFLAGS := -isystem /usr/share/include/llhttp
LLHTTP_LIBS   :=
LLHTTP_OBJS   := $(addprefix $(BUILD)/llhttp/,api.o http.o llhttp.o)
endif

ALL_CPPFLAGS = -std=c17 -D_GNU_SOURCE -I. $(LLHTTP_CFLAGS) -DMODUS_VERSION='"$(VERSION)"' \
               $(CPPFLAGS)
ALL_CFLAGS   = $(WARNINGS) $(HARDENING) $(flags_$(VARIANT)) -pthread -fno-plt $(CFLAGS)
ALL_LDFLAGS  = $(HARDLINK) -Wl,-z,max-page-size=0x10000 $(link_$(VARIANT)) -pthread $(LDFLAGS)
LIBS         = $(LLHTTP_LIBS) -luv -lssl -lcrypto -lconfuse -lm

# --- what is built --------------------------------------------------------------------------

ROOMS := concurrency net handlers server
SRC_ROOMS := $(foreach r,$(ROOMS),$(wildcard $(r)/*.c $(r)/*/*.c))
SRC_MAIN  := server/main.c
SRC_LIB   := $(filter-out $(SRC_MAIN),$(SRC_ROOMS))
HEADERS   := $(foreach r,$(ROOMS),$(wildcard $(r)/*.h $(r)/*/*.h))
OBJ_LIB   := $(SRC_LIB:%.c=$(BUILD)/%.o)
MODUS     := $(BUILD)/modus
LIBMODUS  := $(BUILD)/libmodus.a

.DEFAULT_GOAL := all
include $(wildcard $(addsuffix /module.mk,$(ROOMS) tests))

all: $(MODUS) ## build the server (this is the default)

# What answers a small request. It is linked first, and so lies together: a page fault maps the 64 KiB
# around it, and a child of model process pays each one with a microsecond or two, half of it when it
# ends.
TOGETHER := $(addprefix server/,models/process models/process_child parked give_way board) \
            $(addprefix net/,conn conn_input conn_output plain thread socket stats gil http1 \
                             http1_guard target exchange)
TOGETHER := $(TOGETHER:%=$(BUILD)/%.o) $(LLHTTP_OBJS) \
            $(addprefix $(BUILD)/,handlers/text.o concurrency/sem.o concurrency/proxy.o)
# Else their strings lie among those of all others. (clang has no such flag.)
$(TOGETHER): private ALL_CFLAGS += $(if $(findstring clang,$(CC)),,-fno-merge-constants)

# Who knows where it is installed: another PREFIX builds these alone.
INSTALLED_AT := $(BUILD)/server/main.o $(BUILD)/server/default_file.o
$(INSTALLED_AT): private ALL_CPPFLAGS += -DMODUS_PREFIX='"$(PREFIX)"'
$(INSTALLED_AT): $(BUILD)/.prefix

$(MODUS): $(BUILD)/server/main.o $(TOGETHER) $(LIBMODUS)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(LIBMODUS): $(OBJ_LIB) $(LLHTTP_OBJS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/%.o: %.c $(BUILD)/.flags
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# Foreign C: our flags without our warnings.
$(BUILD)/llhttp/%.o: $(LLHTTP_DIR)/%.c $(BUILD)/.flags
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=c17 $(LLHTTP_CFLAGS) -DLLHTTP_STRICT_MODE=1 $(HARDENING) $(flags_$(VARIANT)) $(CFLAGS) -w -c -o $@ $<

# Changed flags rebuild everything: the file changes only when the words do.
.PHONY: FORCE
$(BUILD)/.flags: FORCE
	$(Q)mkdir -p $(@D)
	$(Q)echo '$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(LIBS)' | cmp -s - $@ || \
	    echo '$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(LIBS)' > $@

$(BUILD)/.prefix: FORCE
	$(Q)mkdir -p $(@D)
	$(Q)echo '$(PREFIX)' | cmp -s - $@ || echo '$(PREFIX)' > $@

.SECONDARY:
-include $(shell test -d $(BUILD) && find $(BUILD) -name '*.d')

# --- packages -------------------------------------------------------------------------------

.PHONY: packages-build packages-test packages-bench packages-bench-toolbox
packages-build packages-test packages-bench packages-bench-toolbox: packages-%:
	$(Q)sh tests/packages.sh $(PACKAGES_$(shell echo $* | tr a-z- A-Z_))

# --- targets --------------------------------------------------------------------------------

.PHONY: all run help clean stats headers install uninstall
run: packages-build ## install what is missing, build, serve conf/modus.conf
	$(Q)$(MAKE) --no-print-directory all
	$(Q)exec $(MODUS) -c conf/modus.conf

headers: ## each header compiles alone, and includes point one way
	$(Q)sh tests/headers.sh '$(CC)' '$(ALL_CPPFLAGS) $(WARNINGS)' $(HEADERS)

stats: ## medians and the longest functions (needs universal-ctags); never fails
	$(Q)sh tests/stats.sh $(ROOMS)

# The configuration and the example site are yours once they are there: never overwritten, and
# removed only as long as they are what was installed.
ETC      = $(DESTDIR)$(PREFIX)/etc/modus
DOC      = $(DESTDIR)$(PREFIX)/share/doc/modus
MAN      = $(DESTDIR)$(PREFIX)/share/man
EXAMPLES = modus.conf $(patsubst conf/%,%,$(shell find conf/www -type f))
DOCS     = README.md LICENSE conf/production.conf conf/reference.conf conf/modus.service \
           conf/modus.socket

install: all install-toolbox ## install server and toolbox below DESTDIR/PREFIX (/usr/local)
	$(Q)install -Dm755 $(MODUS) $(DESTDIR)$(PREFIX)/sbin/modus
	$(Q)install -d $(DOC) && install -m644 $(DOCS) $(DOC)
	$(Q)sed -i 's|/usr/local/|$(PREFIX)/|g' $(DOC)/production.conf $(DOC)/modus.service
	$(Q)install -Dm644 server/modus.1 $(MAN)/man1/modus.1
	$(Q)install -Dm644 server/modus.conf.5 $(MAN)/man5/modus.conf.5
	$(Q)for f in $(EXAMPLES); do to=$(ETC)/$$f; \
	    test -e $$to || test -L $$to || install -Dm644 conf/$$f $$to || exit 1; done
	$(Q)$(if $(DESTDIR),:,echo "installed; next: $(PREFIX)/sbin/modus -t -c $(PREFIX)/etc/modus/modus.conf")

uninstall: uninstall-toolbox ## remove what install put there; what you changed stays
	$(Q)rm -f $(DESTDIR)$(PREFIX)/sbin/modus $(addprefix $(DOC)/,$(notdir $(DOCS))) \
	    $(MAN)/man1/modus.1 $(MAN)/man5/modus.conf.5
	$(Q)for f in $(EXAMPLES); do if cmp -s conf/$$f $(ETC)/$$f; then rm -f $(ETC)/$$f; fi; done
	$(Q)for d in $(DOC) $(ETC)/www $(ETC); do test ! -d $$d || rmdir --ignore-fail-on-non-empty $$d || exit 1; done

clean: ## remove build/
	$(Q)rm -rf build

help: ## this list
	$(Q)sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'
	$(Q)echo; echo '  CC, CFLAGS, LDFLAGS, PREFIX and DESTDIR are yours; V=1 shows the commands,'
	$(Q)echo '  WERROR=0 lets warnings pass, VARIANT=debug|asan|tsan builds another variant.'
