# The table of mutants and what caught them. Ends with 1 when one survived or an unchanged copy did not pass.
use strict;
use warnings;

my ($package, $mode) = @ARGV;
my ($bad, %caught, @checks);
open(my $list, '<', "$package/list") or die "$package/list: $!\n";
my @rows = map { chomp; [split /\t/, $_, 4] } <$list>;
for my $row (@rows) {
  my ($module, $driver, $file, $breaks) = @$row;
  my (@made, @failed, $status);
  open(my $in, '<', "$package/results/$module") or die "$module was not tried: $!\n";
  while (<$in>) {
    chomp;
    my ($kind, $what, $why) = split /\t/, $_, 3;
    push @made, $what if $kind eq 'check';
    push @failed, [$what, $why] if $kind eq 'failed';
    $status = $what if $kind eq 'status';
  }
  push @checks, grep { my $check = $_; !grep { $_ eq $check } @checks } @made;
  my $end = grep({ $status == $_ } 124, 137, 152) ? 'time-out' : $status > 2 ? 'crash' : '';
  $caught{ $_->[0] }{$module} = 1 for @failed;
  $caught{ $made[-1] }{$module} = 1 if $end;
  my $isControl = $module =~ /_unchanged$/;
  my $by = @failed ? "$failed[0][0]: $failed[0][1]" : $end ? "$end in $made[-1]" : '';
  my $more = keys(%{ { map { $_->[0] => 1 } @failed, $end ? [$made[-1]] : () } }) - 1;
  $by .= " (and $more more)" if $more > 0;
  my $result = $isControl
    ? ($status == 0 ? 'passes all checks' : "FAILED, $by")
    : ($by ne '' ? $by : 'SURVIVED');
  $bad++ if $isControl ? $status != 0 : $by eq '';
  my $name = $module =~ s/_/ /r =~ s/_/-/gr;
  printf "%s | %s | %s\n", $name, $breaks, $result;
}
if ($mode) {
  print "\nWhat each check caught:\n";
  printf "%3d  %s\n", scalar(keys %{ $caught{$_} || {} }), $_ for @checks;
}
my $mutants = grep { $_->[0] !~ /_unchanged$/ } @rows;
printf "%d mutants, %d not as they should be\n", $mutants, $bad // 0;
exit($bad ? 1 : 0);
