/// What follows the header of a version message (vfio-user 0.9.2, "VFIO_USER_VERSION").
public struct VersionMessage: Sendable, Equatable {
  /// The version that this implementation speaks: 0.1, as libvfio-user.
  public static let major: UInt16 = 0
  public static let minor: UInt16 = 1

  public var major: UInt16
  public var minor: UInt16
  public var capabilities: Capabilities

  public struct Capabilities: Sendable, Equatable {
    public var maximumDescriptors: Int?
    public var maximumDataByteCount: Int?
    public var maximumDMAMaps: Int?
    /// Page sizes for DMA maps, or'ed together.
    public var pageSizes: UInt64?
    public var writeMultiple: Bool?

    public init(
      maximumDescriptors: Int? = nil, maximumDataByteCount: Int? = nil, maximumDMAMaps: Int? = nil,
      pageSizes: UInt64? = nil, writeMultiple: Bool? = nil
    ) {
      self.maximumDescriptors = maximumDescriptors
      self.maximumDataByteCount = maximumDataByteCount
      self.maximumDMAMaps = maximumDMAMaps
      self.pageSizes = pageSizes
      self.writeMultiple = writeMultiple
    }
  }

  public init(major: UInt16, minor: UInt16, capabilities: Capabilities) {
    self.major = major
    self.minor = minor
    self.capabilities = capabilities
  }

  /// - Parameter bytes: the message without its header.
  public init(_ bytes: [UInt8]) throws(MessageError) {
    var reader = ByteReader(bytes)
    guard let major = reader.read16(), let minor = reader.read16() else {
      throw .malformed("the version message is too short")
    }
    self.init(major: major, minor: minor, capabilities: Capabilities())
    guard let text = reader.readBytes(reader.remaining), !text.isEmpty else { return }
    guard text.last == 0 else { throw .malformed("the version data does not end in NUL") }
    guard let json = JSONReader.parse(text.dropLast()), case .object = json else {
      throw .malformed(
        "the version data is no JSON object within \(JSONReader.maximumByteCount) bytes")
    }
    guard let members = json["capabilities"] else { return }
    guard case .object = members else { throw .malformed("capabilities is no object") }
    capabilities = Capabilities(
      maximumDescriptors: try Self.number(members, "max_msg_fds", 1...1024).map(Int.init),
      maximumDataByteCount: try Self.number(members, "max_data_xfer_size", 1...(1 << 40))
        .map(Int.init),
      maximumDMAMaps: try Self.number(members, "max_dma_maps", 1...(1 << 32)).map(Int.init),
      pageSizes: try Self.number(members, "pgsizes", 1...Int64.max).map(UInt64.init),
      writeMultiple: try Self.boolean(members, "write_multiple"))
    if let migration = members["migration"] {
      guard case .object = migration else { throw .malformed("migration is no object") }
    }
  }

  private static func number(
    _ members: JSONValue, _ name: String, _ range: ClosedRange<Int64>
  ) throws(MessageError) -> Int64? {
    guard let value = members[name] else { return nil }
    guard case .integer(let number) = value, range.contains(number) else {
      throw .malformed("\(name) is no number that can be used")
    }
    return number
  }

  private static func boolean(_ members: JSONValue, _ name: String) throws(MessageError) -> Bool? {
    guard let value = members[name] else { return nil }
    guard case .boolean(let flag) = value else {
      throw .malformed("\(name) is neither true nor false")
    }
    return flag
  }

  /// The message without its header.
  public var bytes: [UInt8] {
    var members: [String] = []
    if let value = capabilities.maximumDescriptors { members.append("\"max_msg_fds\":\(value)") }
    if let value = capabilities.maximumDataByteCount {
      members.append("\"max_data_xfer_size\":\(value)")
    }
    if let value = capabilities.maximumDMAMaps { members.append("\"max_dma_maps\":\(value)") }
    if let value = capabilities.pageSizes { members.append("\"pgsizes\":\(value)") }
    if let value = capabilities.writeMultiple { members.append("\"write_multiple\":\(value)") }
    var writer = ByteWriter()
    writer.write16(major)
    writer.write16(minor)
    writer.write("{\"capabilities\":{\(members.joined(separator: ","))}}".utf8)
    writer.write8(0)
    return writer.bytes
  }
}
