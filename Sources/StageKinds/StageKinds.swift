import Firewall
import NAT44
import Shaper
import Stage
import VLANTagger

/// The stages of Martlet's own program: one line each.
public let stageKinds = [
  InstalledStage("firewall", Firewall.self),
  InstalledStage("nat44", NAT44.self),
  InstalledStage("vlan", VLANTagger.self),
  InstalledStage("shaper", Shaper.self),
]
