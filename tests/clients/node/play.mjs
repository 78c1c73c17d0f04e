// Has the conversations that it is told of, one after another, and prints a line of JSON for each:
// what the application ran, and the text it ended with. Whatever goes wrong ends the process.

export const baseURL = process.env.CALLGATE_URL;
export const apiKey = "sk-user";
export const [wire, way] = process.argv.slice(2);
export const maxTurns = 5;

export const parameters = {
  type: "object",
  properties: { id: { type: "integer" } },
  required: ["id"],
  additionalProperties: false,
};

export async function play(converse) {
  for (const model of JSON.parse(process.env.CALLGATE_CASES)) {
    const executed = [];
    const tool = (name, result) => ({ id }) => {
      executed.push(`${name} ${id}`);
      return result;
    };
    const tools = { get_user: tool("get_user", "Ann"), drop_table: tool("drop_table", "gone") };
    const text = await converse(model, tools);
    console.log(JSON.stringify({ case: model, executed, text }));
  }
}
