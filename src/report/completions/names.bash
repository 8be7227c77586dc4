
# After clap's own words, the names that `labwright get KIND -o name` prints: it reads the state alone, in a few milliseconds.
_labwright_names() {
    local -a options=()
    local kind=vms command= what= operands=0 i word
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
            --lab | -C | --site)
                ((i++))
                [[ ${COMP_WORDS[i]} == "=" ]] && ((i++))
                options+=("${word/#-C/--lab}" "${COMP_WORDS[i]}")
                ;;
            -*) ;;
            *)
                if [[ -z $command ]]; then
                    command=$word
                elif [[ $command == status && $operands == 0 && " ${options[*]} " != *" --lab "* ]]; then
                    options+=(--lab "$word") operands=1
                elif [[ $command == get && $operands == 0 ]]; then
                    kind=$word operands=1
                else
                    [[ $operands == 0 ]] && what=$word
                    ((operands++))
                fi
                ;;
        esac
    done
    local prefix= current=${COMP_WORDS[COMP_CWORD]}
    case $command,$operands in
        vm,0 | template,0 | get,0 | plan,* | apply,* | destroy,*) kind= ;;
        status,0) [[ " ${options[*]} " == *" --lab "* ]] || kind= ;;
        vm,* | template,*)
            case $command,$what in
                template,publish) ;;
                template,update) [[ $operands -gt 1 ]] || kind=templates ;;
                vm,derive | template,*) kind=templates ;;
            esac
            ;;
        get,* | status,* | explain,* | restore,* | purge,* | import,*) ;;
        *) kind= ;;
    esac
    case ${COMP_WORDS[COMP_CWORD - 1]} in
        --target | --allow) kind=vms prefix=vm/ ;;
        --lab | -C | --site | -o | --output) kind= ;;
    esac
    [[ $current == vm/* ]] && prefix=vm/
    [[ -n $kind && $current != -* ]] || return
    # A stand-alone word for each name, whatever IFS is.
    local IFS=$'\n'
    COMPREPLY+=($(compgen -P "$prefix" -W "$(labwright get "$kind" -o name "${options[@]}" 2>/dev/null)" -- "${current#"$prefix"}"))
}

_labwright_and_names() {
    _labwright "$@"
    _labwright_names
}
complete -F _labwright_and_names -o nosort -o bashdefault -o default labwright
