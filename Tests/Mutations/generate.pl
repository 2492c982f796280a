# Writes a Swift package with a copy of a driver for each mutant, one module each, and the program that tries them.
# usage: generate.pl CHECKOUT PACKAGE [all]; prints `module driver file sentence`, tab-separated, for each module.
#
# A mutation, in NAME.mutations for the driver NAME:
#   === its-name, then `more` where only `all` tries it
#   file: path in the checkout, of the driver or of what its copies have of the libraries
#   breaks: one sentence
#   --- text that is in the file exactly once
#   +++ what takes its place
# Each copy has its driver's ring with it, which hides the library's, and stores through WeakMemory.
use strict;
use warnings;
use File::Path 'make_path';

my ($root, $package, $mode) = @ARGV;
# What each copy has of the libraries, in place of theirs.
my %parts = (
  E1000e => ['Rings/DescriptorRing'], VirtioNet => [
    'Rings/Virtqueue', 'Rings/NewChains', 'Rings/UsedChains', 'Rings/SplitQueue', 'Rings/SplitQueue+New',
    'Rings/SplitQueue+Used', 'Rings/PackedQueue', 'Rings/PackedQueue+New', 'Rings/PackedQueue+Used',
    'VirtioTransports/PCITransport']);
my $here = "$root/Tests/Mutations";

sub contents {
  my ($path) = @_;
  open(my $in, '<', $path) or die "$path: $!\n";
  local $/;
  return scalar <$in>;
}

# An unchanged file keeps its date, so that nothing is built twice.
sub put {
  my ($path, $text) = @_;
  return if -e $path && contents($path) eq $text;
  open(my $out, '>', $path) or die "$path: $!\n";
  print $out $text;
  close($out) or die "$path: $!\n";
}

sub mutations {
  my ($driver) = @_;
  my @all = ({ name => 'unchanged', driver => $driver, file => '', breaks => 'nothing' });
  my $text = contents("$here/$driver.mutations");
  $text =~ s/^#.*\n//mg;
  for my $block (split /^=== /m, $text) {
    next if $block =~ /^\s*$/;
    $block =~ /\A([a-z0-9-]+)( more)?\nfile: (\S+)\nbreaks: ([^\n]+)\n---\n(.*?)\+\+\+\n(.*)\z/s
      or die "$driver.mutations: cannot read:\n$block\n";
    my ($name, $more, $file, $breaks, $from, $to) = ($1, $2, $3, $4, $5, $6);
    $to =~ s/\n+\z/\n/;
    my $original = contents("$root/$file");
    my $count = () = $original =~ /\Q$from\E/g;
    die "$driver.mutations: $name: its text is $count times in $file, not once\n" if $count != 1;
    my $at = index($original, $from);
    substr($original, $at, length $from) = $to;
    next if $more && !$mode;
    push @all, { name => $name, driver => $driver, file => $file, breaks => $breaks, text => $original };
  }
  return @all;
}

my @mutants = map { s{.*/}{}r =~ s/\.mutations$//r } sort glob("$here/*.mutations");
@mutants = map { mutations($_) } @mutants;
my %modules;
for my $mutant (@mutants) {
  my $module = "$mutant->{driver}-$mutant->{name}" =~ s/-/_/gr;
  die "$module is there twice\n" if $modules{$module}++;
  $mutant->{module} = $module;
  my $folder = "$package/Sources/$module";
  make_path($folder);
  my %wanted;
  for my $path (glob("$root/Drivers/$mutant->{driver}/*.swift")) {
    $wanted{ $path =~ s{.*/}{}r } = contents($path);
  }
  my %library;
  for my $part (@{ $parts{$mutant->{driver}} }) {
    my ($library, $name) = split m{/}, "$part.swift";
    $wanted{$name} = contents("$root/Sources/$library/$name");
    $library{$name} = $library;
  }
  $wanted{'Shadows.swift'} = contents("$here/Shadows.swift");
  if ($mutant->{file}) {
    my $name = $mutant->{file} =~ s{.*/}{}r;
    die "$mutant->{driver}.mutations: $mutant->{file} is not in its copies\n" unless $wanted{$name};
    $wanted{$name} = $mutant->{text};
  }
  $wanted{$_} = "import $library{$_}\n$wanted{$_}" for keys %library;
  # WeakMemory allocates.
  s/\@_noLocks ?//g for values %wanted;
  put("$folder/$_", $wanted{$_}) for keys %wanted;
  unlink grep { !$wanted{ s{.*/}{}r } } glob("$folder/*.swift");
}
for my $folder (glob("$package/Sources/*")) {
  my $module = $folder =~ s{.*/}{}r;
  next if $modules{$module} || $module eq 'mutants' || $module eq 'WeakMemory';
  unlink glob("$folder/*");
  rmdir $folder;
}

make_path("$package/Sources/mutants", "$package/Sources/WeakMemory");
put("$package/Sources/WeakMemory/WeakMemory.swift", contents("$here/WeakMemory.swift"));
put("$package/Sources/mutants/main.swift", contents("$here/main.swift"));
my $table = join "", map {
  "  if name == \"$_->{module}\" { try$_->{driver}($_->{module}.$_->{driver}.self) }\n"
} @mutants;
put("$package/Sources/mutants/Mutants.swift",
  join("", map { "import $_->{module}\n" } @mutants)
    . "\n/// Makes all checks on one of the copies.\nfunc tryMutant(_ name: String) {\n$table}\n");

my $names = join ", ", map { "\"$_->{module}\"" } @mutants;
unlink "$package/martlet";
symlink($root, "$package/martlet") or die "$package/martlet: $!\n";
put("$package/Package.swift", <<"END");
// swift-tools-version: 6.2
import PackageDescription

let swift: [SwiftSetting] = [
  .enableExperimentalFeature("Lifetimes"),
  .enableExperimentalFeature("SuppressedAssociatedTypes"),
]
let martlet: [Target.Dependency] = [
  .product(name: "MartletDriver", package: "martlet"),
  .product(name: "MartletConformance", package: "martlet"),
  .product(name: "MartletModels", package: "martlet"),
]
let copies = [$names]

let package = Package(
  name: "mutants",
  dependencies: [.package(path: "martlet")],
  targets: copies.map {
    .target(name: \$0, dependencies: ["WeakMemory"] + martlet, swiftSettings: swift)
  } + [
    .target(name: "WeakMemory", dependencies: martlet),
    .executableTarget(
      name: "mutants", dependencies: copies.map { .target(name: \$0) } + ["WeakMemory"] + martlet,
      swiftSettings: swift)
  ],
  swiftLanguageModes: [.v6]
)
END
print join("\t", @$_{qw(module driver file breaks)}), "\n" for @mutants;
