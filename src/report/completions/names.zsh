
# Names that `labwright get KIND -o name` prints: it reads the state alone, in a few milliseconds.
_labwright_names() {
    local -a typed options names
    local kind=vms i
    typed=(${(z)LBUFFER})
    for (( i = 2; i < $#typed; i++ )); do
        case $typed[i] in
            --lab | -C | --site) options+=(${typed[i]/#-C/--lab} ${(Q)typed[i+1]}) ;;
            --lab=* | --site=*) options+=(${(Q)typed[i]}) ;;
            get) kind=$typed[i+1] ;;
            derive | template) kind=templates ;;
            publish) kind=vms ;;
            update) (( i + 1 < $#typed )) && kind=vms ;;
        esac
    done
    names=(${(f)"$(labwright get $kind -o name $options 2>/dev/null)"})
    compadd -a names
}
