// Vercel's AI SDK, which runs the tools itself.
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { apiKey, baseURL, maxTurns, parameters, play, way, wire } from "./play.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const provider = createOpenAI({ apiKey, baseURL });

await play(async (model, tools) => {
  const offered = Object.entries(tools).map(([name, execute]) => [
    name,
    tool({ description: name, inputSchema: jsonSchema(parameters), execute }),
  ]);
  const request = {
    model: wire === "chat" ? provider.chat(model) : provider.responses(model),
    prompt: "go",
    tools: Object.fromEntries(offered),
    stopWhen: stepCountIs(maxTurns),
    maxRetries: 0,
    onError: ({ error }) => { throw error; },
  };
  const result = way === "stream" ? streamText(request) : await generateText(request);
  return await result.text;
});
