// Writes the text of each `Hello` into a ConfigMap of the same name: what plugins/hello does, without the SDK.
//
// The contract is ../../wit/reconciler.wit, with its names in camelCase: a plan is returned, a failure is thrown, and
// objects cross as JSON text.

function plan({ object }) {
  const { metadata, spec } = JSON.parse(object);
  const { name, namespace } = metadata;
  const text = spec?.text;
  if (typeof text !== "string") {
    const why = text === undefined ? "missing field `text`" : "`text` is no string";
    throw failure("terminal", "InvalidSpec", `spec of Hello ${name} does not decode: ${why}`);
  }
  const config = { apiVersion: "v1", kind: "ConfigMap", metadata: { name, namespace }, data: { text } };
  const message = "the text is in the ConfigMap of the same name";
  return {
    writes: [{ verb: "own", object: JSON.stringify(config), options: "{}" }],
    report: {
      status: JSON.stringify({ text }),
      conditions: [{ name: "Ready", status: "yes", reason: "Written", message }],
      events: [],
    },
    after: null,
    partial: false,
    done: false,
    extensions: "{}",
  };
}

function failure(kind, reason, message) {
  const report = { status: null, conditions: [], events: [] };
  return { kind, reason, message, after: null, report, extensions: "{}" };
}

// Whatever else is thrown would end the call without a word of why.
function reconcile(request) {
  try {
    return plan(request);
  } catch (error) {
    throw error instanceof Error ? failure("retry", error.name, error.message) : error;
  }
}

export const reconciler = { reconcile };
