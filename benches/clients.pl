#!/usr/bin/perl
# Students who ask the daemon, each from an account of their own: a process each, as their commands are.
# usage: clients.pl start SOCKET PEOPLE UID            all start their vm at some moment of ten seconds, and look before and after:
#                                                      a line for each request, `KIND MILLISECONDS STATUS`
#        clients.pl hold SOCKET PEOPLE UID CONNECTIONS   all connect, ask once, and stay until our input ends
use strict;
use warnings;
use IO::Socket::UNIX;
use POSIX ();
use Time::HiRes qw(sleep time);

my ($mode, $socket, $people, $first_uid, $connections) = @ARGV;
my $seconds = 10;
$| = 1;

sub become {
    my $uid = $first_uid + shift;
    $) = "$uid $uid";
    POSIX::setgid($uid);
    POSIX::setuid($uid);
}

sub connected { IO::Socket::UNIX->new(Peer => $socket) or die "cannot connect: $!\n" }

# Status of the answer, which is read to its end.
sub ask {
    my ($stream, $line, $body) = @_;
    my $head = "$line HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: " . length($body);
    syswrite($stream, "$head\r\n\r\n$body");
    my $heard = '';
    until ($heard =~ /\r\n\r\n/) { sysread($stream, $heard, 65536, length $heard) or return 'nothing'; }
    my ($told, $rest) = split /\r\n\r\n/, $heard, 2;
    my ($length) = $told =~ /content-length: (\d+)/i;
    while (length($rest) < $length) { sysread($stream, $rest, 65536, length $rest) or return 'half'; }
    return (split ' ', $told)[1];
}

sub timed {
    my ($kind, @request) = @_;
    my $begun = time;
    my $status = ask(connected(), @request);
    return sprintf "%s %.0f %s\n", $kind, (time - $begun) * 1000, $status;
}

# What each of them prints, at once.
sub start {
    my $number = shift;
    my $vm = sprintf 'u%06d-tiny', $number + 1;
    sleep $seconds * (($number * 7919) % $people) / $people;
    my $read = "GET /v1/labs/bench/vms/$vm";
    my $said = timed('read', 'GET /v1/labs/bench/vms', '') . timed('read', $read, '');
    $said .= timed('start', "POST /v1/labs/bench/vms/$vm/power", '{"wanted":"start","isolated":true,"by_name":true}');
    syswrite(STDOUT, $said . timed('read', $read, ''));
}

if ($mode eq 'start') {
    for my $number (0 .. $people - 1) {
        next if fork;
        become($number);
        start($number);
        POSIX::_exit(0);
    }
    1 while wait != -1;
} else {
    # An account has its share of connections, so that some of them have several each.
    my $each = 50;
    my ($answers, $told);
    pipe($answers, $told);
    my @children;
    for my $number (0 .. $connections / $each - 1) {
        my $child = fork;
        if ($child) { push @children, $child; next; }
        close $answers;
        become($number);
        my @streams = map { connected() } 1 .. $each;
        for my $stream (@streams) { my $status = ask($stream, 'GET /v1/labs', ''); syswrite($told, "$status\n"); }
        close $told;
        sleep 3600;
        POSIX::_exit(0);
    }
    close $told;
    my $answered = grep { $_ eq "200\n" } <$answers>;
    print "$answered\n";
    1 while <STDIN>;
    kill 'KILL', @children;
}
