# lamina - one program, everything out of tree in $(BUILD).
#
#   make                the program and its compat links        make demo     the main job on real input
#   make check          all tests (CI runs this)                make check-long   fuzzing, long sweeps
#   make bench          beside the peers, ratios                make install  PREFIX= DESTDIR= (install-compat, install-qemu-io: links)
#   SAN=address,undefined | SAN=thread     a sanitized build in its own folder
#   WITHOUT="liburing libzstd libdeflate libisal liblzma bzip2 expat gnutls libnbd blkid"  leaves optional libraries out

comma := ,
BUILD ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)))
PREFIX ?= /usr/local
PKG_CONFIG ?= pkg-config
CFLAGS ?= -O2 -g
V ?= 0
Q := $(if $(filter 1,$(V)),,@)

OPTIONAL := liburing libzstd libdeflate libisal liblzma expat gnutls libnbd blkid
FOUND := $(foreach p,$(filter-out $(WITHOUT),$(OPTIONAL)),$(if $(shell $(PKG_CONFIG) --exists $(p) && echo y),$(p)))
LIBRARIES := jansson zlib nettle libargon2 $(FOUND)
# libbz2 has no .pc file.
BZIP2 := $(if $(filter bzip2,$(WITHOUT)),,$(if $(wildcard /usr/include/bzlib.h /usr/local/include/bzlib.h),y))
have = -DHAVE_$(shell echo $(1) | tr a-z- A-Z_)=1

all_cppflags := -I. -D_GNU_SOURCE $(foreach p,nettle $(FOUND) $(if $(BZIP2),bzip2),$(call have,$(p))) \
	$(shell $(PKG_CONFIG) --cflags $(LIBRARIES)) $(CPPFLAGS)
all_cflags := -std=gnu11 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wno-unused-parameter -Werror=implicit-function-declaration -Werror=incompatible-pointer-types \
	-pthread -fno-omit-frame-pointer -ffile-prefix-map=$(CURDIR)=. \
	$(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=undefined) $(CFLAGS)
all_ldflags := -pthread $(if $(SAN),-fsanitize=$(SAN)) $(LDFLAGS)
all_libs := $(shell $(PKG_CONFIG) --libs $(LIBRARIES)) $(if $(BZIP2),-lbz2) $(LIBS)

# --- what is built --------------------------------------------------------------------------------

floors := block imgfmt raid volumes nbd tools
lib_src := $(filter-out tools/main.c,$(sort $(foreach f,$(floors),$(wildcard $(f)/*.c))))
lib_obj := $(lib_src:%.c=$(BUILD)/obj/%.o)
testlib_src := $(sort $(wildcard tests/lib/*.c))
testlib_obj := $(testlib_src:%.c=$(BUILD)/obj/%.o)
unit_bin := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/unit/*.c)))
sweep_bin := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/sweeps/*.c)))
bench_bin := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard bench/*.c)))
fuzz_src := $(sort $(wildcard tests/fuzz/*.c))
fuzz_bin := $(fuzz_src:%.c=$(BUILD)/%)
compat := $(addprefix $(BUILD)/compat/,qemu-img qemu-nbd qemu-io)

.PHONY: all tests benches fuzzers check check-long bench demo install uninstall clean format format-check
all: $(BUILD)/lamina $(compat)
tests: all $(unit_bin) $(sweep_bin) $(BUILD)/bench/nbd_load
benches: all $(bench_bin)
fuzzers: $(fuzz_bin)

$(BUILD)/lamina: $(BUILD)/obj/tools/main.o $(BUILD)/liblamina.a
	$(Q)$(CC) $(all_ldflags) -o $@ $^ $(all_libs)
	@echo "  LD  $@"

$(compat): | $(BUILD)/lamina
	@mkdir -p $(@D)
	$(Q)ln -sf ../lamina $@

$(BUILD)/liblamina.a: $(lib_obj)
	$(Q)rm -f $@ && $(AR) rcsD $@ $^

$(BUILD)/libtest.a: $(testlib_obj)
	$(Q)rm -f $@ && $(AR) rcsD $@ $^

# The flags are a prerequisite: another WITHOUT or CFLAGS rebuilds.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(all_cppflags) $(all_cflags)' | cmp -s - $@ || echo '$(CC) $(all_cppflags) $(all_cflags)' > $@
FORCE:

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(all_cppflags) $(all_cflags) -MMD -MP -c -o $@ $<
	@echo "  CC  $<"

$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(BUILD)/libtest.a $(BUILD)/liblamina.a
	@mkdir -p $(@D)
	$(Q)$(CC) $(all_ldflags) -o $@ $^ $(shell $(PKG_CONFIG) --libs check) $(all_libs)

$(BUILD)/tests/sweeps/%: $(BUILD)/obj/tests/sweeps/%.o $(BUILD)/libtest.a $(BUILD)/liblamina.a
	@mkdir -p $(@D)
	$(Q)$(CC) $(all_ldflags) -o $@ $^ $(all_libs)

$(BUILD)/bench/%: $(BUILD)/obj/bench/%.o $(BUILD)/liblamina.a
	@mkdir -p $(@D)
	$(Q)$(CC) $(all_ldflags) -o $@ $^ $(all_libs)

# libFuzzer: the library once more with clang, instrumented, in its own folder; then a link per target.
FUZZ_CC ?= clang-14
fuzz_flags := -fsanitize=fuzzer,address,undefined
fuzz_make = +$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/fuzz CC=$(FUZZ_CC) \
	SAN=fuzzer-no-link,address,undefined CFLAGS='-O1 -g -DFUZZING=1'
.PHONY: fuzz-objects
fuzz-objects:
	$(fuzz_make) $(BUILD)/fuzz/liblamina.a $(fuzz_src:%.c=$(BUILD)/fuzz/obj/%.o)

$(BUILD)/tests/fuzz/%: fuzz-objects
	@mkdir -p $(@D)
	$(Q)$(FUZZ_CC) $(fuzz_flags) -pthread -o $@ $(BUILD)/fuzz/obj/tests/fuzz/$*.o $(BUILD)/fuzz/liblamina.a $(all_libs)

.PRECIOUS: $(BUILD)/obj/%.o
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

# --- what is run ----------------------------------------------------------------------------------

check: deps
	$(Q)$(MAKE) --no-print-directory tests fuzzers
	$(Q)BUILD=$(BUILD) scripts/check

check-long: export LAMINA_LONG := 1
check-long: deps
	$(Q)$(MAKE) --no-print-directory tests fuzzers
	$(Q)BUILD=$(BUILD) scripts/check --long

bench: deps
	$(Q)$(MAKE) --no-print-directory benches
	$(Q)BUILD=$(BUILD) bench/run

demo: deps
	$(Q)$(MAKE) --no-print-directory all
	$(Q)BUILD=$(BUILD) scripts/demo

.PHONY: deps
deps:
	$(Q)scripts/install-deps

# Man pages and completions come from the program's own tables.
.PHONY: share install-compat install-qemu-io
share: $(BUILD)/lamina
	$(Q)scripts/make-share $(BUILD)/lamina $(BUILD)/share

man = $(DESTDIR)$(PREFIX)/share/man/man1
doc = $(DESTDIR)$(PREFIX)/share/doc/lamina
UNITS ?= $(PREFIX)/lib/systemd/system

install: all share
	install -D -m 755 $(BUILD)/lamina $(DESTDIR)$(PREFIX)/bin/lamina
	install -d $(man) $(doc)/recipes
	install -m 644 $(BUILD)/share/man/lamina*.1 $(man)
	install -D -m 644 $(BUILD)/share/completion/bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/lamina
	install -D -m 644 $(BUILD)/share/completion/zsh $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_lamina
	install -D -m 644 $(BUILD)/share/completion/fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/lamina.fish
	install -d $(DESTDIR)$(UNITS)
	for unit in service socket; do sed 's|/usr/bin|$(PREFIX)/bin|' systemd/lamina@.$$unit > $(DESTDIR)$(UNITS)/lamina@.$$unit; done
	chmod 644 $(DESTDIR)$(UNITS)/lamina@.*
	install -m 644 README.md NEWS LICENSE SECURITY.md docs/stability.md $(doc)
	install -m 644 docs/recipes/*.md $(doc)/recipes

# The names that scripts call.
install-compat: share
	install -d $(DESTDIR)$(PREFIX)/bin $(man)
	ln -sf lamina $(DESTDIR)$(PREFIX)/bin/qemu-img
	ln -sf lamina $(DESTDIR)$(PREFIX)/bin/qemu-nbd
	install -m 644 $(BUILD)/share/man/qemu-img.1 $(BUILD)/share/man/qemu-nbd.1 $(man)

install-qemu-io: share
	install -d $(DESTDIR)$(PREFIX)/bin $(man)
	ln -sf lamina $(DESTDIR)$(PREFIX)/bin/qemu-io
	install -m 644 $(BUILD)/share/man/qemu-io.1 $(man)

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/lamina $(man)/lamina.1 $(man)/lamina-*.1 $(DESTDIR)$(UNITS)/lamina@.*
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/lamina
	rm -f $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_lamina
	rm -f $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/lamina.fish
	rm -rf $(doc)

clean:
	rm -rf $(BUILD)

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

format-check:
	$(Q)scripts/check-style
