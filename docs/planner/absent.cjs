// Stands for what needs files or the network in the planner's bundle (imports.json): a plan needs neither.
const absent = (name) =>
  function () {
    throw new Error(
      `This page cannot do that: ${name} needs files or the network\n  fix: plan it by deno task train --dry-run`,
    );
  };

module.exports = Object.create(new Proxy({}, { get: (_, name) => absent(String(name)) }));
