/// A table for the terminal: the first two columns to the left, numbers to the right.
public struct TextTable: Sendable {
  private var rows: [[String]]

  public init(columns: [String]) { rows = [columns] }

  /// - Parameter cells: one for each column.
  public mutating func add(_ cells: [String]) {
    precondition(cells.count == rows[0].count)
    rows.append(cells)
  }

  public var text: String {
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    let lines = rows.map { row in
      row.enumerated().map { column, cell in
        let space = String(repeating: " ", count: widths[column] - cell.count)
        return column < 2 ? cell + space : space + cell
      }.joined(separator: "  ")
    }
    return lines.joined(separator: "\n")
  }
}
