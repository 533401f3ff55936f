// What scripts/build_dashboard.ts makes of edge/dashboard/app/.
declare module '*/dist/assets.js' {
  export const page: string
  export const etag: string
  export const files: Readonly<Record<string, { readonly type: string; readonly body: string }>>
}
