/* The order of replies as plain values: no page, no events.

   A row is {letter: "A", place: 1}; place 0 means it has none. A group is a list of letters that tie; groups go best first. */

/** Rows to groups: [{A 1}, {B 3}, {C 1}] gives [["A", "C"], ["B"]]. */
export function groupsOf(rows) {
  const placed = rows.filter((row) => row.place > 0).sort((a, b) => a.place - b.place);
  const groups = [];
  let last = 0;
  for (const { letter, place } of placed) {
    if (place === last) groups.at(-1).push(letter);
    else groups.push([letter]);
    last = place;
  }
  return groups;
}

/** Groups to places, one more than how many are better: [["A", "C"], ["B"]] gives {A: 1, C: 1, B: 3}. */
export function placesOf(groups) {
  const places = {};
  let better = 0;
  for (const group of groups) {
    for (const letter of group) places[letter] = better + 1;
    better += group.length;
  }
  return places;
}

/** The groups with `letter` moved: `where` is {tie: "B"}, {before: "B"}, {after: "B"}, or {} for the end. */
export function moved(groups, letter, where) {
  const rest = groups.map((group) => group.filter((other) => other !== letter)).filter((group) => group.length);
  const holding = (other) => rest.findIndex((group) => group.includes(other));
  if (where.tie) rest[holding(where.tie)].push(letter);
  else if (where.before) rest.splice(holding(where.before), 0, [letter]);
  else if (where.after) rest.splice(holding(where.after) + 1, 0, [letter]);
  else rest.push([letter]);
  return rest.map((group) => group.sort());
}

/** ["A", "C", "D"] gives "A, C and D". */
export function listed(letters) {
  if (letters.length < 2) return letters.join("");
  return `${letters.slice(0, -1).join(", ")} and ${letters.at(-1)}`;
}

/** What a screen reader says: "A and C first, then B." */
export function said(groups) {
  return groups.map((group, at) => (at ? "then " : "") + listed(group) + (at ? "" : " first")).join(", ");
}
