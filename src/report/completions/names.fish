
# Names that `labwright get KIND -o name` prints: it reads the state alone, in a few milliseconds.
function __labwright_names -a kind
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
    labwright get $kind -o name $options 2>/dev/null
end
complete -c labwright -n "begin; __fish_seen_subcommand_from vm explain restore purge import; and not __fish_seen_subcommand_from derive; end; or __fish_seen_subcommand_from publish; or begin; __fish_seen_subcommand_from get; and __fish_seen_subcommand_from vm vms mappings disks; end" -f -a "(__labwright_names vms)"
complete -c labwright -n "__fish_seen_subcommand_from derive; or begin; __fish_seen_subcommand_from template; and __fish_seen_subcommand_from install update versions; end" -f -a "(__labwright_names templates)"
