
# Names that `labwright get vms -o name` prints: it reads the state alone, in a few milliseconds.
function __labwright_names
    set -l typed (commandline -opc)
    set -l options
    for i in (seq (count $typed))
        switch $typed[$i]
            case --lab -C --site
                set -a options $typed[$i] $typed[(math $i + 1)]
            case '--lab=*' '--site=*'
                set -a options $typed[$i]
        end
    end
    labwright get vms -o name $options 2>/dev/null
end
complete -c labwright -n "__fish_seen_subcommand_from vm explain restore purge import; or begin; __fish_seen_subcommand_from get; and __fish_seen_subcommand_from vm vms mappings disks; end" -f -a "(__labwright_names)"
