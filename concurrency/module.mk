# The toolbox alone, for programs that are no server: libmodus-concurrency, static and shared, its
# headers, a pkg-config file and gdb's commands for coroutines. Its objects are position-independent, so that one set serves both.
TOOLBOX_OBJ := $(patsubst %.c,$(BUILD)/pic/%.o,$(wildcard concurrency/*.c))
TOOLBOX_A   := $(BUILD)/libmodus-concurrency.a
TOOLBOX_SO  := $(BUILD)/libmodus-concurrency.so.0
TOOLBOX_PC  := $(BUILD)/modus-concurrency.pc
# Not those that say that they are for implementers, but for the two that others embed.
TOOLBOX_HEADERS := $(filter-out %_priv.h,$(shell grep -L 'For implementers' concurrency/*.h)) \
                   concurrency/store.h concurrency/timers.h

LIBDIR     = $(DESTDIR)$(PREFIX)/lib
INCLUDEDIR = $(DESTDIR)$(PREFIX)/include/modus/concurrency
SHAREDIR   = $(DESTDIR)$(PREFIX)/share/modus

.PHONY: toolbox install-toolbox uninstall-toolbox
toolbox: $(TOOLBOX_A) $(TOOLBOX_SO) $(TOOLBOX_PC) ## build libmodus-concurrency

$(BUILD)/pic/%.o: %.c $(BUILD)/.flags
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -fPIC -MMD -MP -c -o $@ $<

$(TOOLBOX_A): $(TOOLBOX_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(TOOLBOX_SO): $(TOOLBOX_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,$(@F) $(filter-out -pie,$(ALL_LDFLAGS)) -o $@ $^ -luv

$(TOOLBOX_PC): $(BUILD)/.prefix concurrency/module.mk Makefile
	$(Q)printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$${prefix}/lib' 'includedir=$${prefix}/include/modus' '' \
	    'Name: modus-concurrency' 'Version: $(VERSION)' \
	    'Description: locks, queues, pools and coroutines, between threads and between processes' \
	    'Requires.private: libuv-static' 'Libs: -L$${libdir} -lmodus-concurrency -pthread' \
	    'Cflags: -I$${includedir} -pthread' > $@

install-toolbox: toolbox ## install the toolbox alone below DESTDIR/PREFIX
	$(Q)install -d $(LIBDIR)/pkgconfig $(INCLUDEDIR)
	$(Q)install -m644 $(TOOLBOX_HEADERS) $(INCLUDEDIR)
	$(Q)install -m644 $(TOOLBOX_A) $(TOOLBOX_SO) $(LIBDIR)
	$(Q)ln -sf $(notdir $(TOOLBOX_SO)) $(LIBDIR)/libmodus-concurrency.so
	$(Q)install -m644 $(TOOLBOX_PC) $(LIBDIR)/pkgconfig
	$(Q)install -Dm644 concurrency/README.md $(DOC)/toolbox.md
	$(Q)install -Dm644 concurrency/gdb.py $(SHAREDIR)/gdb.py

uninstall-toolbox: ## remove what install-toolbox put there
	$(Q)rm -f $(addprefix $(INCLUDEDIR)/,$(notdir $(TOOLBOX_HEADERS))) $(LIBDIR)/libmodus-concurrency.so \
	    $(addprefix $(LIBDIR)/,$(notdir $(TOOLBOX_A) $(TOOLBOX_SO))) $(LIBDIR)/pkgconfig/$(notdir $(TOOLBOX_PC)) $(DOC)/toolbox.md \
	    $(SHAREDIR)/gdb.py
	$(Q)for d in $(INCLUDEDIR) $(dir $(INCLUDEDIR)) $(DOC) $(SHAREDIR); do \
	    test ! -d $$d || rmdir --ignore-fail-on-non-empty $$d || exit 1; done
