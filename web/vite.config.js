// One script and one style sheet with fixed names: they are embedded into the binary.
export default {
  base: "./",
  build: {
    assetsInlineLimit: 0,
    modulePreload: false,
    rollupOptions: {
      output: { entryFileNames: "app.js", assetFileNames: "app.[ext]", inlineDynamicImports: true },
    },
  },
};
