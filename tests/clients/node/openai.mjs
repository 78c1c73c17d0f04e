// OpenAI's own client: its tool runner on chat completions, a plain loop on responses.
import OpenAI from "openai";
import { apiKey, baseURL, maxTurns, parameters, play, way, wire } from "./play.mjs";

const client = new OpenAI({ apiKey, baseURL, maxRetries: 0 });
const stream = way === "stream";

async function chat(model, tools) {
  const offered = Object.entries(tools).map(([name, run]) => ({
    type: "function",
    function: { name, description: name, parameters, parse: JSON.parse, function: run },
  }));
  const messages = [{ role: "user", content: "go" }];
  const options = { maxChatCompletions: maxTurns };
  const runner = client.chat.completions.runTools({ model, messages, tools: offered, stream }, options);
  return await runner.finalContent();
}

async function responses(model, tools) {
  const offered = Object.keys(tools).map((name) => ({ type: "function", name, parameters, strict: true }));
  const input = [{ role: "user", content: "go" }];
  for (let turn = 0; turn < maxTurns; turn++) {
    const request = { model, input, tools: offered };
    const response = stream
      ? await client.responses.stream(request).finalResponse()
      : await client.responses.create(request);
    const calls = response.output.filter((item) => item.type === "function_call");
    if (calls.length === 0) return response.output_text;
    input.push(...response.output);
    for (const { call_id, name, arguments: text } of calls) {
      input.push({ type: "function_call_output", call_id, output: tools[name](JSON.parse(text)) });
    }
  }
  throw new Error("the model goes on and on");
}

await play(wire === "chat" ? chat : responses);
