#!/usr/bin/env bash
# Man pages and completions from the program's tables, and where make install lays everything.
. "$(dirname "$0")/../lib/e2e.sh"
top=$(cd "$(dirname "$0")/../.." && pwd)
share=$(dirname "$LAMINA")/share

(cd "$top" && scripts/make-share "$LAMINA" "$share") || bad "make-share"
pages=$("$LAMINA" help pages)
equal "a page for each verb" "$(grep -c '^lamina-' <<<"$pages")" "$("$LAMINA" help | tail -n 1 | wc -w)"
wrong=
examples=
for page in $pages; do
    [ -z "$(man --warnings=all -l "$share/man/$page.1" 2>&1 >/dev/null)" ] || wrong="$wrong $page"
    for heading in NAME SYNOPSIS DESCRIPTION "EXIT STATUS" ENVIRONMENT "SEE ALSO"; do
        grep -qx "\.SH $heading" "$share/man/$page.1" || wrong="$wrong $page($heading)"
    done
    grep -qx '\.SH EXAMPLES' "$share/man/$page.1" || examples="$examples $page"
done
equal "man reads every page without a warning" "$wrong" ""
equal "every page has examples" "$examples" ""
verbs_of() { sed -n 's/^\.SS //p' "$share/man/lamina-$1.1" | tr -d '\\'; }
without_example=
without_line=
twice=
dead=
for verb in $("$LAMINA" help | tail -n 1); do
    while read -r words; do
        "$LAMINA" $words --help >help || bad "$words --help"
        grep -q "^  .*lamina $words" help || without_example="$without_example $words,"
        sed '1,/^Options:/d; /^$/,$d' help | sed -zE 's/\n {33}/ /g' >options # the help of a long name stands below it
        without_line=$without_line$(grep -vE '^  .{30,} [^ ]' options)
        twice=$twice$(grep -oE '^ +(-., )?--[^ =]+' options | sed 's|.* ||' | sort | uniq -d | sed "s/^/ $words/")
        [ -n "${LAMINA_LONG:-}" ] || continue
        for option in $(grep -oE '^ {2,6}-[^ ,=]+(, --[^ =]+)?(=[^ ]*)?' options | sed -E 's/.*(--|-)/\1/; s/=.*/=x/' | grep -v '^--help'); do
            timeout 5 "$LAMINA" $words "$option" nothing nothing </dev/null >/dev/null 2>&1
            [ $? -lt 124 ] || dead="$dead $words $option,"
        done
    done < <(verbs_of "$verb" | grep . || echo "$verb")
done
equal "every verb, and every verb of a verb, has an example in its help" "$without_example" ""
equal "every option has its line" "$without_line" ""
equal "no verb has two options of one name" "$twice" ""
equal "every option is known to its verb (looked at in check-long)" "$dead" ""
equal "an option is on its page" "$(man -l "$share/man/lamina-convert.1" 2>/dev/null | col -b | grep -c -e '--resume$')" 1
fails "a page that is not there" 1 "help pages" "$LAMINA" help man lamina-nothing

bash_says() {
    bash -c '. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _lamina lamina "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"; echo "${COMPREPLY[@]}"' \
        _ "$share/completion/bash" lamina "$@" 2>&1
}
equal "bash: a verb" "$(bash_says meas)" measure
equal "bash: an option" "$(bash_says convert --resu)" --resume
equal "bash: a format" "$(bash_says convert -O qco)" "qcow2 qcow"
equal "bash: a verb's verb" "$(bash_says raid exam)" examine
equal "bash: and its option" "$(bash_says raid create --assume)" --assume-clean
if command -v fish >/dev/null; then
    fish_says() { fish -c "source $share/completion/fish; complete -C '$*'" 2>&1 | cut -f1 | tr '\n' ' '; }
    equal "fish: a verb" "$(fish_says lamina meas)" "measure "
    equal "fish: an option" "$(fish_says lamina convert --resu)" "--resume "
    equal "fish: a verb's verb's option" "$(fish_says lamina raid create --assume)" "--assume-clean "
else
    echo "skip - fish is not installed"
fi
if command -v zsh >/dev/null; then
    equal "zsh takes the file" "$(zsh -f -c 'autoload -U compinit; compinit -D; autoload -U +X _arguments
        _arguments() { print -l -- "$@"; }; CURRENT=3; words=(lamina hash ""); . "$1"' _ "$share/completion/zsh" 2>&1 |
        grep -c -e '^\*--expect=\[')" 1
else
    echo "skip - zsh is not installed"
fi
is "make install" make -C "$top" -o "$BUILD/lamina" BUILD="$BUILD" PREFIX=/usr DESTDIR="$PWD/to" install install-compat install-qemu-io
for file in bin/lamina bin/qemu-img bin/qemu-nbd bin/qemu-io share/man/man1/lamina-convert.1 share/man/man1/qemu-img.1 \
    share/bash-completion/completions/lamina share/zsh/vendor-completions/_lamina share/fish/vendor_completions.d/lamina.fish \
    lib/systemd/system/lamina@.service lib/systemd/system/lamina@.socket share/doc/lamina/README.md; do
    [ -s "to/usr/$file" ] || bad "$file is not installed"
done
is "what was installed runs" to/usr/bin/qemu-img create -q -f qcow2 x.qcow2 1M
is "make uninstall" make -C "$top" -o "$BUILD/lamina" BUILD="$BUILD" PREFIX=/usr DESTDIR="$PWD/to" uninstall
equal "leaves the links only" "$(find to -type f -o -type l | grep -v 'qemu-' )" ""
exit $failed
