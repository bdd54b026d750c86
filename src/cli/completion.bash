# Tab completion for `python -m src.train` and the other commands: groups, their options, and keys.
#   eval "$(python -m src.train --shell-completion install=bash)"
_pixelwise_completion() {
    local line=${COMP_LINE:0:COMP_POINT}
    local word=${line##* } choices= after=${line#*-m }
    local module=${after%% *}
    COMPREPLY=()
    [[ $line == *" -m "* ]] || return
    if [[ $module == "$word" ]]; then
        choices="@COMMANDS@"
    elif [[ $module == src.* ]]; then
        choices=$(COMP_LINE=${line#*-m } COMP_POINT=$COMP_POINT "${COMP_WORDS[0]}" -m "$module" -sc query=bash 2>/dev/null)
    fi
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
    # bash counts what stands behind a `=` as a word of its own
    if [[ $COMP_WORDBREAKS == *=* && $word == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")
    fi
}
complete -o nospace -o default -F _pixelwise_completion python python3 .venv/bin/python
