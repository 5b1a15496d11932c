"""`completion bash`, `completion fish` and `completion zsh`: scripts that ask `sampan __complete` what can follow.

That knows the verbs, the flags and the names (`completing.py`); a script knows its shell. The words go to the command that
is being typed, `sudo` and paths and all, so that the same installation answers that will run the line.
"""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import out
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

# readline takes a word of ours apart at "=" and ":" (COMP_WORDBREAKS) and replaces the last part only. So the line is split
# anew at blanks, and what of the word is before that part is taken from the answers.
_BASH = r"""# bash completion for sampan: source <(sampan completion bash)
_sampan() {
  local line=${COMP_LINE:0:COMP_POINT} part=${COMP_WORDS[COMP_CWORD]} words last before answer files
  # The part up to the cursor; a lone separator has nothing behind it yet.
  read -ra words <<< "$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  last=${words[${#words[@]}-1]}
  [[ $part == [=:]* ]] && part=""
  while [[ -n $part && $last != *"$part" ]]; do part=${part%?}; done
  before=${last%"$part"}
  COMPREPLY=()
  while IFS= read -r answer; do
    if [[ $answer == ":files" ]]; then
      compopt -o filenames
      if [[ $before == *= ]]; then last=$part; fi
      mapfile -t files < <(compgen -f -- "$last")
      COMPREPLY+=("${files[@]}")
      continue
    fi
    answer=${answer%%$'\t'*}
    COMPREPLY+=("${answer#"$before"}")
  done < <("${words[0]}" __complete "${words[@]:1}" 2> /dev/null)
  # Behind "key=" and "container:" more is to come.
  [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=:] ]] && compopt -o nospace
}
complete -F _sampan sampan
"""

_ZSH = r"""#compdef sampan
# zsh completion for sampan: source <(sampan completion zsh), or write it to a file _sampan in $fpath
_sampan() {
  local answer word files
  local -a described whole open
  for answer in "${(@f)$(${(Q)words[1]} __complete "${(@Q)words[2,CURRENT]}" 2> /dev/null)}"; do
    [[ -n $answer ]] || continue
    if [[ $answer == ":files" ]]; then
      files=yes
      continue
    fi
    word=${answer%%$'\t'*}
    if [[ $word == *[=:] ]]; then
      open+=("$word")
    elif [[ $answer == *$'\t'* && -z DESCRIPTIONS ]]; then
      described+=("${word//:/\\:}:${answer#*$'\t'}")
    else
      whole+=("$word")
    fi
  done
  (( $#described )) && _describe -V 'sampan' described
  (( $#whole )) && compadd -- "${whole[@]}"
  # Behind "key=" and "container:" more is to come.
  (( $#open )) && compadd -S '' -- "${open[@]}"
  if [[ -n $files ]]; then
    # Behind "--flag=" the name is what follows.
    compset -P '*='
    _files
  fi
  (( compstate[nmatches] ))
}
if [[ $funcstack[1] == _sampan ]]; then
  _sampan "$@"
else
  compdef _sampan sampan
fi
"""

_FISH = r"""# fish completion for sampan: sampan completion fish | source
function __sampan_complete
  set -l words (commandline --tokenize --cut-at-cursor --current-process)
  set -l last (commandline --current-token --cut-at-cursor)
  set -l answers ($words[1] __complete $words[2..] "$last" 2> /dev/null)
  if set -l at (contains --index -- ":files" $answers)
    set --erase answers[$at]
    # Behind "--flag=" the name is what follows.
    set -l flag (string match --regex -- '^-[^=]*=' "$last")
    for path in (__fish_complete_path (string replace --regex -- '^-[^=]*=' '' "$last"))
      echo -- "$flag$path"
    end
  end
  test (count $answers) -gt 0; and printf '%s\n' $answers DESCRIPTIONS
end
complete --command sampan --no-files --keep-order --arguments '(__sampan_complete)'
"""


def bash(_context: Context, _arguments: Arguments) -> int:
    """Print the script for bash; descriptions are nothing that it could show."""
    out(_BASH.rstrip("\n"))
    return 0


def zsh(_context: Context, arguments: Arguments) -> int:
    """Print the script for zsh."""
    out(_ZSH.replace("DESCRIPTIONS", '"no"' if arguments["no-descriptions"] else '""').rstrip("\n"))
    return 0


def fish(_context: Context, arguments: Arguments) -> int:
    """Print the script for fish."""
    without = r"| string replace --regex -- '\t.*' ''" if arguments["no-descriptions"] else ""
    out(_FISH.replace(" DESCRIPTIONS", f" {without}".rstrip()).rstrip("\n"))
    return 0


_NO_DESCRIPTIONS = (Flag("no-descriptions", "bool", "Complete without descriptions"),)

BASH = Command("", bash, at_most=0)
FISH = Command("[OPTIONS]", fish, _NO_DESCRIPTIONS, at_most=0)
ZSH = Command("[OPTIONS]", zsh, _NO_DESCRIPTIONS, at_most=0)
