#!/usr/bin/env bash
# Every command on the pages of docs/recipes and in README.md, page by page, each in a folder of its own.
. "$(dirname "$0")/../lib/e2e.sh"
lib=$(cd "$(dirname "$0")/../lib" && pwd)
top=$(cd "$lib/../.." && pwd)
export LAMINA_SOURCE=$top TMPDIR=$PWD
export PATH="$(dirname "$LAMINA"):$PATH"
export -f make_disk

run_page() {
    local page=$1 name
    name=$(basename "$page" .md)
    mkdir "$name"
    python3 "$lib/recipe.py" "$page" >"$name.sh"
    if ! grep -q '^lamina ' "$name.sh"; then
        [ "$name" = README ] || echo "FAIL - $name: no command"
    elif (cd "$name" && timeout 60 bash ../"$name.sh" >../"$name.out" 2>../"$name.err"); then
        echo "ok - $name: $(grep -c '^ *lamina ' "$name.sh") commands"
    else
        echo "FAIL - $name: $(tail -n 3 "$name.err" | tr '\n' ' ')"
    fi
    sed -n "s/^left-out /skip - $name: needs /p" "$name.out" 2>/dev/null
    rm -rf "$name"
}
for page in "$top"/docs/recipes/*.md "$top"/README.md; do
    run_page "$page"
done | tee .said
grep -q '^FAIL' .said && failed=1
listed=$(grep -o '([a-z0-9-]*\.md)' "$top/docs/recipes/README.md" | tr -d '()' | sort)
equal "the list of recipes is whole" "$listed" "$(cd "$top/docs/recipes" && ls | grep -v README)"
equal "README's table of formats is the drivers'" "$("$top/scripts/format-table" "$LAMINA")" \
    "$(sed -n '/^| format/,/^$/p' "$top/README.md" | sed '/^$/d')"
exit $failed
